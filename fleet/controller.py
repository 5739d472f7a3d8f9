"""The controller: messages of nodes and wishes of operators become events of rollouts, and commands become documents.

It decides nothing (`fleet/rollout.py` does) and signs nothing (`fleet/orders.py` does): it keeps the order. One event
at a time is applied, stored and only then published.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from contracts import manifest as manifests
from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from contracts.messages import Reported, Status, Vitals, decode
from contracts.topics import EVERY_AUDIT, every_node, node_of
from fleet import gates
from fleet.acceptance import Acceptances
from fleet.api import NodeView, RolloutRequest
from fleet.audits import AuditRefused, read_audit
from fleet.config import FleetConfig
from fleet.metrics import Metrics
from fleet.orders import Orders, Publications, identity_of
from fleet.registry import Registry, measurements_of
from fleet.rollout import (
    FINAL,
    Abort,
    Assign,
    Audited,
    Event,
    Gate,
    Heard,
    Plan,
    Rollout,
    Tick,
    advance,
    begin,
    plan_stages,
)
from fleet.roster import Roster
from fleet.signing import Signing
from fleet.state import NodeRow, State, Worker
from runtime.links.mqtt.port import LONGEST_PAUSE_S, MqttPort
from runtime.links.process.within import within

log = logging.getLogger(__name__)

M = TypeVar("M", Status, Reported)

TICK_S = 0.25
MAINTENANCE_S = 30.0
_LONGEST_TICK_S = 1.0
"""A process that was stopped for longer has not listened meanwhile."""


class Controller:
    """One fleet's rollouts. `clock` gives unix time. `state`, `signing`, `registry`, `orders` are used on `worker`.

    `hop_key` is the one that routers seal their audits with.
    """

    def __init__(
        self,
        *,
        port: MqttPort,
        worker: Worker,
        state: State,
        signing: Signing,
        registry: Registry,
        orders: Orders,
        acceptances: Acceptances,
        config: FleetConfig,
        metrics: Metrics,
        hop_key: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._port = port
        self._worker = worker
        self._state = state
        self._signing = signing
        self._registry = registry
        self._orders = orders
        self._acceptances = acceptances
        self._config = config
        self._metrics = metrics
        self._hop_key = hop_key
        self._clock = clock
        self._roster = Roster()
        self._nodes: dict[str, NodeRow] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._standing: Publications = {}
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes up where the last process stopped; works with or without the broker."""
        self._nodes = {node.name: node for node in await self._worker.run(self._state.nodes)}
        self._rollouts = {rollout.plan.id: rollout for rollout in await self._worker.run(self._state.rollouts)}
        self._standing = await self._worker.run(self._orders.standing)
        self._port.subscribe(every_node("status"), self._on_status)
        self._port.subscribe(every_node("reported"), self._on_reported)
        self._port.subscribe(EVERY_AUDIT, self._on_audit)
        self._port.on_connect(self._assert_all)
        await self._port.start()
        self._tasks = [asyncio.ensure_future(self._tick()), asyncio.ensure_future(self._maintain())]
        for rollout in self._open():
            log.info("fleet: rollout %s goes on: %s, stage %d", rollout.plan.id, rollout.phase, rollout.stage + 1)

    async def stop(self) -> None:
        await self.end_watching()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._port.stop()

    @property
    def connected(self) -> bool:
        return self._port.connected

    def rollouts(self) -> list[Rollout]:
        """Oldest first."""
        return list(self._rollouts.values())

    def rollout(self, rollout_id: str) -> Rollout:
        found = self._rollouts.get(rollout_id)
        if found is None:
            raise FoothillError("not_found", f"There is no rollout {rollout_id[:80]!r}.")
        return found

    def node(self, name: str) -> NodeRow | None:
        """An enrolled node."""
        return self._nodes.get(name)

    async def node_views(self) -> list[NodeView]:
        rows = {row.node: row.sequence for row in await self._worker.run(self._state.desired)}
        assigned = await self._worker.run(lambda: {name: self._state.assigned(name) for name in self._nodes})
        return [self._view(node, assigned.get(name, {}), rows.get(name, 0)) for name, node in self._nodes.items()]

    def count_nodes(self) -> dict[str, int]:
        """Nodes by state, for the metrics."""
        counts = {"online": 0, "draining": 0, "offline": 0, "unknown": 0}
        for name in self._nodes:
            status = self._roster.status(name)
            counts[status.state if status else "unknown"] += 1
        return counts

    def welcome(self, node: NodeRow) -> None:
        """A node has joined: routers hear of it, rollouts may name it."""
        self._nodes[node.name] = node
        self._publish(dict([identity_of(node)]))
        log.info("fleet: node %s joined: %s, %s", node.name, node.region, node.url)

    async def start_rollout(self, request: RolloutRequest) -> Rollout:
        """Plans a rollout and exposes its first stage. Raises FoothillError that says why it cannot start."""
        async with self._lock:
            plan = await self._plan(request)
            rollout, commands = begin(plan, self._clock())
            log.info("fleet: rollout %s starts: %s to %d nodes", plan.id, plan.bundle, len(rollout.nodes))
            return await self._commit(rollout, commands)

    async def abort(self, rollout_id: str, reason: str) -> Rollout:
        """Sends every exposed node back. Raises FoothillError `conflict` when the rollout has ended."""
        if self.rollout(rollout_id).phase in FINAL:
            raise FoothillError(
                "conflict", f"Rollout {rollout_id} has ended. To go back, start a rollout of the bundle you want."
            )
        await self._apply(rollout_id, Abort(reason, self._clock()))
        return self.rollout(rollout_id)

    async def withdraw(self, node: str, model: str) -> None:
        """Takes a model off one node. Raises FoothillError `not_found`, or `conflict` while a rollout has it."""
        async with self._lock:
            self._choose((node,))
            for rollout in self._open():
                if rollout.plan.model == model and node in rollout.nodes:
                    raise FoothillError(
                        "conflict", f"Rollout {rollout.plan.id} of {model} is under way on {node}. Abort it, or wait."
                    )
            self._publish(await self._worker.run(self._orders.withdraw, node, model))
            log.info("fleet: %s is taken off %s", model, node)

    async def watch(self, rollout_id: str, heartbeat_s: float = 10.0) -> AsyncIterator[Rollout | None]:
        """The rollout now and after every change until it ends; None as a sign of life in between."""
        seen: Rollout | None = None
        while not self._closing:
            now = self.rollout(rollout_id)
            yield None if now is seen else now
            if now.phase in FINAL:
                return
            seen = now
            async with self._changed:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._changed.wait(), heartbeat_s)

    async def end_watching(self) -> None:
        self._closing = True
        async with self._changed:
            self._changed.notify_all()

    async def _plan(self, request: RolloutRequest) -> Plan:
        bundle = await self._worker.run(self._registry.find, *manifests.parse_reference(request.bundle))
        if bundle.tier != "edge":
            raise FoothillError("bad_request", f"{bundle.reference} is a cloud bundle: edge nodes do not take it.")
        for rollout in self._rollouts.values():
            if rollout.plan.model == bundle.model and rollout.phase not in FINAL:
                raise FoothillError(
                    "conflict", f"Rollout {rollout.plan.id} of model {bundle.model} is under way. Abort it, or wait."
                )
        assigned = await self._worker.run(self._state.assigned_digests, bundle.model)
        nodes = [name for name in self._choose(request.nodes) if assigned.get(name) != bundle.digest]
        if not nodes:
            raise FoothillError("conflict", f"No node is left to give {bundle.reference} to: enrol one, or it is done.")
        await self._check_accepted(request, nodes)
        previous = {name: assigned.get(name, "") for name in nodes}
        stages = plan_stages(nodes, request.stages)
        return Plan(
            id=f"{bundle.name}-{bundle.version}-{secrets.token_hex(3)}",
            bundle=bundle.reference,
            model=bundle.model,
            digest=bundle.digest,
            stages=stages,
            previous=previous,
            deadline_s=_positive(request.stage_deadline_s, self._config.stage_deadline_s),
            silence_s=_positive(request.silence_s, self._config.silence_s),
            gate=await self._gate(stages, previous) if request.gate == "agreement" else None,
        )

    async def _check_accepted(self, request: RolloutRequest, nodes: list[str]) -> None:
        if not request.for_acceptance:
            fingerprints = [(name, self._fingerprint(self._nodes[name])) for name in nodes]
            await self._worker.run(self._acceptances.check, fingerprints)
        elif isinstance(request.nodes, str) or len(request.nodes) != 1:
            raise FoothillError("bad_request", "A rollout for an acceptance names exactly one node.")
        else:
            log.warning("fleet: %s goes to %s for its acceptance", request.bundle, nodes[0])

    def _fingerprint(self, node: NodeRow) -> Fingerprint:
        """As it last reported, else as it enrolled."""
        report = self._roster.report(node.name)
        return report.fingerprint if report else node.fingerprint

    def _choose(self, wanted: tuple[str, ...] | str) -> list[str]:
        if isinstance(wanted, str):
            return sorted(self._nodes, key=lambda name: (not self._roster.is_online(name), name))
        unknown = [name for name in wanted if name not in self._nodes]
        if unknown:
            raise FoothillError("not_found", f"No such nodes: {', '.join(unknown)}. See `foothill fleet node ls`.")
        return list(dict.fromkeys(wanted))

    async def _gate(self, stages: tuple[tuple[str, ...], ...], previous: dict[str, str]) -> Gate | None:
        """After the first stage that replaces anything; a first version has nothing to be compared with."""
        stage = next((i for i, names in enumerate(stages) if any(previous[name] for name in names)), None)
        if stage is None:
            return None
        replaced = frozenset(digest for digest in previous.values() if digest)
        audited = await self._worker.run(self._state.recent_tally, replaced)
        measured = await self._worker.run(self._measured, replaced)
        return Gate(stage, gates.terms_for(audited, measured, self._config.gate))

    def _measured(self, digests: frozenset[str]) -> gates.Tally | None:
        tallies = []
        for bundle in map(self._state.bundle_by_digest, digests):
            if bundle is not None:
                artifacts = manifests.decode(bundle.manifest).artifacts
                ruled = frozenset(artifact.file for artifact in artifacts if artifact.confidence is not None)
                tallies.append(gates.measured_tally(measurements_of(bundle), ruled))
        known = [tally for tally in tallies if tally is not None]
        return max(known, key=lambda tally: tally.disagreements / tally.n, default=None)

    async def _apply(self, rollout_id: str, event: Event) -> None:
        async with self._lock:
            before = self._rollouts[rollout_id]
            after, commands = advance(before, event)
            if not commands and after == msgspec.structs.replace(before, waited_s=after.waited_s):
                self._rollouts[rollout_id] = after  # waiting alone is not worth a write: a restart waits a little more
            else:
                await self._commit(after, commands)

    async def _commit(self, rollout: Rollout, commands: tuple[Assign, ...]) -> Rollout:
        """Disk first, then memory, then the network. Called with the lock held."""
        committed = await self._worker.run(self._orders.commit, rollout, commands)
        after: Rollout = committed.rollout
        before = self._rollouts.get(after.plan.id)
        self._rollouts[after.plan.id] = after
        self._publish(committed.publications)
        if before is None or (before.phase, before.stage) != (after.phase, after.stage):
            log.info("fleet: rollout %s: %s, stage %d %s", after.plan.id, after.phase, after.stage + 1, after.reason)
        async with self._changed:
            self._changed.notify_all()
        return after

    def _publish(self, publications: Publications) -> None:
        self._standing |= publications
        for topic, payload in publications.items():
            self._port.publish(topic, payload, retain=True)

    def _assert_all(self) -> None:
        for topic, payload in self._standing.items():
            self._port.publish(topic, payload, retain=True)

    def _open(self) -> list[Rollout]:
        """Rollouts that still listen: those under way, and those with nodes that have not come back."""
        return [
            rollout
            for rollout in self._rollouts.values()
            if rollout.phase not in FINAL or any(node.phase == "reverting" for node in rollout.nodes.values())
        ]

    async def _on_status(self, topic: str, payload: bytes) -> None:
        status = self._read(topic, payload, Status)
        if status is not None and self._roster.put_status(status):
            log.info("fleet: node %s is %s", status.node, status.state)

    async def _on_reported(self, topic: str, payload: bytes) -> None:
        report = self._read(topic, payload, Reported)
        if report is None or not self._roster.put_report(report):
            return
        for rollout in self._open():
            if report.node in rollout.nodes:
                model = report.models.get(rollout.plan.model)
                await self._apply(rollout.plan.id, Heard(report.node, report.sequence, model, self._clock()))

    async def _on_audit(self, topic: str, payload: bytes) -> None:
        try:
            audit = read_audit(topic, payload, self._nodes, self._hop_key)
        except AuditRefused as refused:
            self._metrics.audit_refused(refused.reason)
            raise
        if not await self._worker.run(self._state.record_audit, audit):
            return
        self._metrics.audit(agree=audit.agree)
        for rollout in self._open():
            if rollout.plan.digest == audit.digest:
                await self._apply(rollout.plan.id, Audited(audit.node, audit.agree, self._clock()))

    def _read(self, topic: str, payload: bytes, kind: type[M]) -> M | None:
        """None for a topic that was cleared. Raises FoothillError or ValueError for all but a known node's own word."""
        if not payload:
            return None
        message = decode(payload, kind)
        if message.node != node_of(topic) or message.node not in self._nodes:
            raise FoothillError("forbidden", f"It speaks of node {message.node[:80]!r}, which is not enrolled there.")
        return message

    async def _tick(self) -> None:
        """Waiting counts while nodes can be heard: not while they still look for a broker that was away."""
        loop = asyncio.get_running_loop()
        heard_s: float | None = None
        back_s = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            before_s, heard_s = heard_s, loop.time() if self._port.connected else None
            if heard_s is None:
                back_s = loop.time() + LONGEST_PAUSE_S
            if before_s is None or heard_s is None or heard_s < back_s:
                continue
            listened_s = min(heard_s - before_s, _LONGEST_TICK_S)
            for rollout in self._open():
                await _logged(self._apply(rollout.plan.id, Tick(listened_s, self._clock())), "a tick")

    async def _maintain(self) -> None:
        while True:
            await _logged(self.maintain(), "maintenance")
            await asyncio.sleep(MAINTENANCE_S)

    async def maintain(self) -> None:
        """Renews what would expire."""
        await self._worker.run(self._signing.renew)
        async with self._lock:
            self._publish(await self._worker.run(self._orders.renew))
        await self._worker.run(self._state.forget_audits)

    def _view(self, node: NodeRow, desired: dict[str, str], sequence: int) -> NodeView:
        status, report = self._roster.status(node.name), self._roster.report(node.name)
        return NodeView(
            node=node.name,
            region=node.region,
            lat=node.lat,
            lon=node.lon,
            url=node.url,
            reach=node.reach,
            target=node.fingerprint.target,
            state=status.state if status else "unknown",
            epoch=status.epoch if status else 0,
            desired=desired,
            desired_sequence=sequence,
            reported=report.models if report else {},
            reported_sequence=report.sequence if report else 0,
            fingerprint=self._fingerprint(node),
            enrolled_at_s=node.enrolled_at_s,
            vitals=report.vitals if report else Vitals(),
        )


async def _logged(work: Awaitable[None], what: str) -> None:
    """A failure (a full disk) is told, and does not end the task: the next round tries again."""
    try:
        await work
    except Exception:
        log.exception("fleet: %s failed; it is tried again", what)


def _positive(asked: float | None, default: float) -> float:
    if asked is not None and not asked > 0:
        raise FoothillError("bad_request", "stage_deadline_s and silence_s must be seconds above 0.")
    return default if asked is None else asked
