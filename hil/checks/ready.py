"""Is the node there, does it say what it serves, and is it the one that the fleet means?"""

from __future__ import annotations

from contracts import oip
from contracts.acceptance import BundleSeen, Check
from contracts.manifest import is_name
from hil.bench import Bench
from hil.checks.guarded import guarded
from hil.fleet import FleetNode
from hil.http_port import plain
from hil.node import check_tensors
from hil.trials import PROBE_MODEL, is_trial

MAX_MODELS = 64


async def ready(bench: Bench) -> list[Check]:
    await bench.node.http.ask("GET", "/v2/health/live")
    await bench.node.http.ask("GET", "/v2/health/ready")
    server = await bench.node.http.read("/v2", oip.ServerMetadata)
    models = await bench.node.models()
    bench.name = bench.name or plain((await bench.node.health()).node, 63)
    told = f"{plain(server.name, 80)} {plain(server.version, 80)} serves {', '.join(models[:MAX_MODELS]) or 'nothing'}"
    return [Check("ready", "passed" if models else "failed", plain(told))]


async def metadata(bench: Bench) -> list[Check]:
    """Metadata and configuration must be there, and of types that can be asked for; those that are become subjects."""
    models = await bench.node.models()
    if len(models) > MAX_MODELS:
        return [Check("metadata", "failed", f"it says that it serves {len(models)} models; {MAX_MODELS} are looked at")]
    return [await guarded("metadata", model, _describe(bench, model)) for model in models]


async def _describe(bench: Bench, model: str) -> Check:
    if not is_name(model):
        return Check("metadata", "failed", f"{plain(model, 80)!r} is no model's name", plain(model, 63))
    subject = await bench.node.subject(model)
    fault = check_tensors(subject)
    if fault:
        return Check("metadata", "failed", fault, model)
    config = subject.config
    bench.subjects.append(subject)
    seen = BundleSeen(
        model, config.said("bundle"), config.digest, plain(config.default_model_filename), config.said("provider")
    )
    bench.bundles.append(seen)
    return Check("metadata", "passed", f"{seen.bundle}, {seen.artifact} on {seen.provider}, {seen.digest}", model)


async def identity(bench: Bench) -> list[Check]:
    """The suite changes what the fleet's node serves: it must be the one at this URL, and nobody else's work."""
    fleet = bench.managed
    said = plain((await bench.node.health()).node, 63)
    name = bench.board.node or said
    found = await fleet.node(name)
    fault = _unlike(bench, found, said) or await _under_way(bench) or await _left_behind(bench, found)
    if fault:
        return [Check("identity", "failed", fault)]
    bench.name, bench.found = name, found
    bench.fingerprint, bench.target = found.fingerprint, found.fingerprint.target
    return [Check("identity", "passed", f"{name} is enrolled as {found.target} and serves what it is assigned")]


def _unlike(bench: Bench, found: FleetNode, said: str) -> str:
    if said != found.node:
        return f"the node at {bench.node.url} calls itself {said!r}, not {found.node}: give its own URL with --node"
    if bench.board.target and bench.board.target != found.fingerprint.target:
        return f"the board's entry expects {bench.board.target}, and it is {found.fingerprint.target}"
    if found.state != "online":
        return f"the fleet has {found.node} as {found.state}: it is not connected to the fleet's broker"
    served = {subject.name: subject.config.digest for subject in bench.subjects}
    wrong = [model for model, digest in found.desired.items() if served.get(model) != digest]
    return f"it does not serve what it is assigned of {', '.join(wrong)}: let it settle first" if wrong else ""


async def _left_behind(bench: Bench, found: FleetNode) -> str:
    """A suite that was killed could put nothing back, and the next one must not take its trials for the node's own."""
    published = await bench.managed.published()
    for model, digest in found.desired.items():
        if model == PROBE_MODEL:
            return f"an earlier run left {model} there: `foothill fleet node withdraw {found.node} {model}`"
        if digest in published and is_trial(published[digest].name):
            report = found.reported.get(model)
            before = published.get(report.previous) if report is not None else None
            wanted = before.reference if before is not None and not is_trial(before.name) else "NAME@VERSION"
            return (
                f"an earlier run left {published[digest].reference} there: "
                f"`foothill fleet rollout start {wanted} --nodes {found.node} --gate health`"
            )
    return ""


async def _under_way(bench: Bench) -> str:
    models = {subject.name for subject in bench.subjects}
    open_ones = [each for each in await bench.managed.all_rollouts() if not each.ended and each.model in models]
    if not open_ones:
        return ""
    return f"rollout {open_ones[0].id} of {open_ones[0].bundle} is under way: wait for its end, or abort it"
