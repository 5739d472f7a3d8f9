"""From what an operator asks for to a rollout's plan: which nodes, in which order, and what its gate holds them to."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from contracts import manifest as manifests
from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from fleet.acceptance import Acceptances
from fleet.api import RolloutRequest
from fleet.config import FleetConfig
from fleet.judging.aims import Tally, aims_for
from fleet.judging.measured import measured_tally
from fleet.judging.ruling import Ruling
from fleet.registry import Registry, measurements_of
from fleet.rollouts.plan import Gate, Plan, Policy, plan_stages
from fleet.roster import Roster
from fleet.state import BundleRow, NodeRow, State, Worker

log = logging.getLogger(__name__)


class Planner:
    """`state`, `registry` and `acceptances` are used on `worker`. All methods raise FoothillError that says why not."""

    def __init__(
        self, *, worker: Worker, state: State, registry: Registry, acceptances: Acceptances, config: FleetConfig
    ) -> None:
        self._worker = worker
        self._state = state
        self._registry = registry
        self._acceptances = acceptances
        self._config = config

    async def plan(
        self, request: RolloutRequest, nodes: Mapping[str, NodeRow], roster: Roster, check: Callable[[str], None]
    ) -> tuple[Plan, Ruling | None]:
        """`nodes` are the enrolled ones. `check` raises where the model that it is given may have no rollout now."""
        bundle = await self._worker.run(self._registry.find, *manifests.parse_reference(request.bundle))
        if bundle.tier != "edge":
            raise FoothillError("bad_request", f"{bundle.reference} is a cloud bundle: edge nodes do not take it.")
        check(bundle.model)
        assigned = await self._worker.run(self._state.assigned_digests, bundle.model)
        chosen = [name for name in choose(request.nodes, nodes, roster) if assigned.get(name) != bundle.digest]
        if not chosen:
            raise FoothillError("conflict", f"No node is left to give {bundle.reference} to: enrol one, or it is done.")
        await self._check_accepted(request, {name: fingerprint_of(nodes[name], roster) for name in chosen})
        previous = {name: assigned.get(name, "") for name in chosen}
        stages = plan_stages(chosen, request.stages)
        judged = request.gate == "quality"
        stage, ruling = await self._ruling(bundle, stages, previous) if judged else (0, None)
        silence_s = _positive(request.silence_s, self._config.silence_s)
        plan = Plan(
            id=f"{bundle.name}-{bundle.version}-{secrets.token_hex(3)}",
            bundle=bundle.reference,
            model=bundle.model,
            digest=bundle.digest,
            stages=stages,
            previous=previous,
            policy=_policy(self._config.policy, request.policy),
            gate=Gate(stage, silence_s) if ruling is not None else None,
            windows=dict.fromkeys(chosen, request.window) if request.window is not None else {},
        )
        return plan, ruling

    async def _check_accepted(self, request: RolloutRequest, fingerprints: dict[str, Fingerprint]) -> None:
        if not request.for_acceptance:
            await self._worker.run(self._acceptances.check, [*fingerprints.items()])
        elif isinstance(request.nodes, str) or len(request.nodes) != 1:
            raise FoothillError("bad_request", "A rollout for an acceptance names exactly one node.")
        else:
            log.warning("fleet: %s goes to %s for its acceptance", request.bundle, request.nodes[0])

    async def _ruling(
        self, bundle: BundleRow, stages: tuple[tuple[str, ...], ...], previous: dict[str, str]
    ) -> tuple[int, Ruling | None]:
        """After the first stage that replaces anything; a first version has nothing to be compared with."""
        stage = next((i for i, names in enumerate(stages) if any(previous[name] for name in names)), None)
        if stage is None:
            return 0, None
        replaced = frozenset(digest for digest in previous.values() if digest)
        aims = aims_for(
            await self._worker.run(self._state.counted, replaced),
            await self._worker.run(self._state.recent_tally, replaced),
            self._config.gate,
            measured=await self._worker.run(self._measured, replaced),
            compared=bool(_ruled(bundle)),
        )
        return stage, Ruling(aims)

    def _measured(self, digests: frozenset[str]) -> Tally | None:
        bundles = [bundle for bundle in map(self._state.bundle_by_digest, digests) if bundle is not None]
        tallies = [measured_tally(measurements_of(bundle), _ruled(bundle)) for bundle in bundles]
        known = [tally for tally in tallies if tally is not None]
        return max(known, key=lambda tally: tally.k / tally.n, default=None)


def _ruled(bundle: BundleRow) -> frozenset[str]:
    """Files of the artifacts whose answers are compared with a cloud model's."""
    artifacts = manifests.decode(bundle.manifest).artifacts
    return frozenset(artifact.file for artifact in artifacts if artifact.confidence is not None)


def choose(wanted: tuple[str, ...] | str, nodes: Mapping[str, NodeRow], roster: Roster) -> list[str]:
    """All of them, those on line first, or the named ones. Raises FoothillError `not_found`."""
    if isinstance(wanted, str):
        return sorted(nodes, key=lambda name: (not roster.is_online(name), name))
    unknown = [name for name in wanted if name not in nodes]
    if unknown:
        raise FoothillError("not_found", f"No such nodes: {', '.join(unknown)}. See `foothill fleet node ls`.")
    return list(dict.fromkeys(wanted))


def fingerprint_of(node: NodeRow, roster: Roster) -> Fingerprint:
    """As it last reported, else as it enrolled."""
    report = roster.report(node.name)
    return report.fingerprint if report else node.fingerprint


def _policy(usual: Policy, asked: dict[str, Any]) -> Policy:
    try:
        return msgspec.convert(msgspec.to_builtins(usual) | asked, Policy)
    except msgspec.ValidationError as error:
        raise FoothillError("bad_request", f"policy: {error}.") from error


def _positive(asked: float | None, default: float) -> float:
    if asked is not None and not asked > 0:
        raise FoothillError("bad_request", "silence_s must be seconds above 0.")
    return default if asked is None else asked
