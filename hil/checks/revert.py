"""Revert: a bundle that fails its golden test and one whose engine fails on probation are taken back by themselves."""

from __future__ import annotations

import asyncio

import numpy as np

from contracts.acceptance import Check
from contracts.errors import FoothillError
from hil.bench import Bench
from hil.checks.activation import fault_of, loading, served_by
from hil.checks.guarded import guarded, of_each
from hil.http_port import plain
from hil.node import FAULTS, Subject
from hil.trials import PROBE_INPUT, PROBE_MODEL, broken, golden_output_files, probe

_POLL_S = 0.05


async def revert(bench: Bench) -> list[Check]:
    refused = await of_each(bench, "revert", _refused)
    return [*refused, await guarded("revert", PROBE_MODEL, _taken_back(bench))]


async def _refused(bench: Bench, subject: Subject) -> Check:
    """A bundle that is not what its golden outputs say must not answer one request."""
    fleet, before = bench.managed, await bench.published(subject)
    manifest = await fleet.manifest(before)
    outputs = {path: await fleet.blob(manifest.files[path].sha256) for path in golden_output_files(manifest)}
    trial = broken(manifest, before.digest, outputs)
    digest = await fleet.publish(trial.manifest, trial.contents)
    bench.say(f"{subject.name}: rolling out {trial.manifest.reference}, whose golden outputs are wrong")
    limit_s = bench.board.limits.update_s
    async with loading(bench, subject) as loaded:
        started = await fleet.roll_out(trial.manifest.reference, bench.name, deadline_s=limit_s)
        ended = await fleet.follow(started.id, timeout_s=2 * limit_s)
    tally = loaded()
    served = await served_by(bench, subject.name, limit_s)
    fault = fault_of(tally)
    if ended.state != "rolled-back":
        fault = "a bundle with wrong golden outputs was taken: the node does not test what it loads"
    elif tally.digests[digest]:
        fault = f"{tally.digests[digest]} requests were answered by a bundle that fails its golden test"
    elif served != before.digest:
        fault = f"the node serves {served} afterwards, not {before.digest}"
    told = f"refused: {plain(ended.reason, 200)}; {tally.answered} answers meanwhile, all by {before.reference}"
    return Check("revert", "failed" if fault else "passed", fault or told, subject.name)


async def _taken_back(bench: Bench) -> Check:
    """An engine that fails once its bundle serves, which no golden test foresees."""
    fleet, limit_s = bench.managed, bench.board.limits.update_s
    trial = probe(bench.target)
    await fleet.publish(trial.manifest, trial.contents)
    bench.say(f"rolling out {trial.manifest.reference}, whose engine will fail on probation")
    started = await fleet.roll_out(trial.manifest.reference, bench.name, deadline_s=limit_s)
    served = await _provoked(bench, started.id, limit_s)
    ended = await fleet.follow(started.id, timeout_s=2 * limit_s)
    gone = await _gone(bench, limit_s)
    if not served:
        fault = f"it never served: {plain(ended.reason, 200)}"
    elif ended.state != "rolled-back":
        fault = "its engine failed right after it began to serve, and it was kept; is probation_s of the node 0?"
    else:
        fault = "" if gone else f"{PROBE_MODEL} is still served after the roll back"
    told = f"the engine failed on probation and the bundle was taken back: {plain(ended.reason, 200)}"
    return Check("revert", "failed" if fault else "passed", fault or told, PROBE_MODEL)


async def _provoked(bench: Bench, rollout_id: str, limit_s: float) -> bool:
    """Makes the engine fail as soon as the probe serves; False when the rollout has ended before."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    while loop.time() < end_s:
        try:
            subject = await bench.node.subject(PROBE_MODEL)
            break
        except FAULTS:
            if (await bench.managed.rollout(rollout_id)).ended:
                return False
        await asyncio.sleep(_POLL_S)
    else:
        return False
    good, bad = (np.full((1, 2), value, np.float32) for value in (1.0, 9.0))
    first = await bench.node.shoot(bench.node.request(subject, {PROBE_INPUT: good}))
    second = await bench.node.shoot(bench.node.request(subject, {PROBE_INPUT: bad}))
    if first.status != 200 or second.status == 200:
        raise FoothillError(
            "upstream_failed", f"{PROBE_MODEL} answered {first.status} and {second.status}, not 200 and an error."
        )
    return True


async def _gone(bench: Bench, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while loop.time() < end_s:
        if PROBE_MODEL not in await bench.node.models():
            return True
        await asyncio.sleep(_POLL_S)
    return False
