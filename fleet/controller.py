"""The controller: messages of nodes and wishes of operators become events of rollouts, and commands become documents.

It decides nothing (`fleet/rollouts` does) and signs nothing (`fleet/orders.py` does): it keeps the order. One event
at a time is applied, stored and only then published.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from contracts.errors import FoothillError
from contracts.messages import Audit, Quality, Reported, Status, Vitals, decode
from contracts.quality import Counts
from contracts.topics import EVERY_AUDIT, every_node, node_of
from fleet.api import NodeView, RolloutRequest
from fleet.audits import AuditRefused, read_audit, read_quality
from fleet.courses import Course
from fleet.judging.book import Booking
from fleet.judging.evident import Audited, Counted, Evident
from fleet.metrics import Metrics
from fleet.orders import Beside, Orders, Publications, identity_of, nothing
from fleet.planning import Planner, choose, fingerprint_of
from fleet.rollouts.advance import Orders as RolloutOrders
from fleet.rollouts.events import Event, Heard, Pause, Promote, Resume, Retry, RollBack, Seen, Taken, Tick
from fleet.rollouts.nodes import EXPOSED, IN_WORK
from fleet.rollouts.rollout import Phase
from fleet.roster import Roster
from fleet.signing import Signing
from fleet.state import NodeRow, State, Worker
from runtime.links.mqtt.port import LONGEST_PAUSE_S, MqttPort
from runtime.links.process.within import within

log = logging.getLogger(__name__)

M = TypeVar("M", Status, Reported)

Wish = Literal["pause", "resume", "promote", "retry"]
_UNDER_WAY: tuple[Phase, ...] = ("staging", "judging")
_WISHES: dict[Wish, tuple[Callable[[float], Event], tuple[Phase, ...]]] = {
    "pause": (Pause, _UNDER_WAY),
    "resume": (Resume, _UNDER_WAY),
    "promote": (Promote, _UNDER_WAY),
    "retry": (Retry, (*_UNDER_WAY, "halted")),
}

TICK_S = 0.25
BOOK_S = 1.0
MAINTENANCE_S = 30.0
GRAIN_S = 1.0 / 1024.0
"""Of ticks, so that their sum does not depend on how they are added up: the audit log adds up those that changed
nothing."""
_LONGEST_TICK_S = 1.0
"""A process that was stopped for longer has not listened meanwhile."""


class Controller:
    """One fleet's rollouts. `clock` gives unix time. `state`, `signing` and `orders` are used on `worker`.

    `hop_key` is the one that routers seal their audits with.
    """

    def __init__(
        self,
        *,
        port: MqttPort,
        worker: Worker,
        state: State,
        signing: Signing,
        orders: Orders,
        planner: Planner,
        metrics: Metrics,
        hop_key: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._port = port
        self._worker = worker
        self._state = state
        self._signing = signing
        self._orders = orders
        self._planner = planner
        self._metrics = metrics
        self._hop_key = hop_key
        self._clock = clock
        self._roster = Roster()
        self._nodes: dict[str, NodeRow] = {}
        self._courses: dict[str, Course] = {}
        self._stale: set[str] = set()
        self._qualities: dict[str, Quality] = {}
        self._told: dict[str, tuple[str, int]] = {}
        self._standing: Publications = {}
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes up where the last process stopped; works with or without the broker."""
        self._nodes = {node.name: node for node in await self._worker.run(self._state.nodes)}
        self._courses = {course.id: course for course in await self._worker.run(self._state.courses)}
        self._standing = await self._worker.run(self._orders.standing)
        self._port.subscribe(every_node("status"), self._on_status)
        self._port.subscribe(every_node("reported"), self._on_reported)
        self._port.subscribe(EVERY_AUDIT, self._on_audit)
        self._port.subscribe(every_node("quality"), self._on_quality)
        self._port.on_connect(self._assert_all)
        await self._port.start()
        works = (self._tick(), self._keep_booking(), self._maintain())
        self._tasks = [asyncio.ensure_future(work) for work in works]
        for course in self._open():
            head = course.rollout.head
            log.info("fleet: rollout %s goes on: %s, stage %d", course.id, head.phase, head.stage + 1)

    async def stop(self) -> None:
        """What has begun is stored first."""
        await self.end_watching()
        async with self._lock:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._port.stop()

    @property
    def connected(self) -> bool:
        return self._port.connected

    def courses(self) -> list[Course]:
        """All rollouts, oldest first."""
        return list(self._courses.values())

    def course(self, rollout_id: str) -> Course:
        found = self._courses.get(rollout_id)
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

    async def start_rollout(self, request: RolloutRequest) -> Course:
        """Plans a rollout and exposes its first stage. Raises FoothillError that says why it cannot start."""
        async with self._lock:
            plan, ruling = await self._planner.plan(request, self._nodes, self._roster, self._check_alone)
            online = [name for name in plan.previous if self._roster.is_online(name)]
            course, orders = Course.begin(plan, ruling, online, self._clock())
            log.info("fleet: rollout %s starts: %s to %d nodes", plan.id, plan.bundle, len(plan.previous))
            same_model = [one.id for one in self._courses.values() if one.rollout.plan.model == plan.model]
            older = [await self._fresh(rollout_id) for rollout_id in same_model]
            for one in older:
                for name in plan.previous:
                    one.feed(Taken(name))
            await self._commit(course, orders, [one for one in older if one.is_changed])
            await _logged(self._feed(course, self._known(course)), "what nodes said meanwhile")
            return course

    async def abort(self, rollout_id: str, reason: str) -> Course:
        """Sends every exposed node back. Raises FoothillError `conflict` when the rollout has ended."""
        if self.course(rollout_id).ended:
            raise FoothillError(
                "conflict",
                f"Rollout {rollout_id} has ended. To go back, roll it back: `foothill fleet rollout rollback`.",
            )
        return await self._steer(rollout_id, RollBack(f"aborted: {reason}", self._clock()))

    async def roll_back(self, rollout_id: str, reason: str) -> Course:
        """The same, and for one that has completed too. Raises FoothillError `conflict` where nobody is left to go
        back, or another rollout of the model is under way."""
        course = self.course(rollout_id)
        rollout = course.rollout
        if rollout.head.phase in ("reverting", "rolled-back"):
            raise FoothillError("conflict", f"Rollout {rollout_id} is {rollout.head.phase} already.")
        if not rollout.count(*EXPOSED):
            raise FoothillError("conflict", f"No node has its version from rollout {rollout_id} any more.")
        self._check_alone(rollout.plan.model, but=rollout_id)
        return await self._steer(rollout_id, RollBack(f"rolled back: {reason}", self._clock()))

    async def steer(self, rollout_id: str, wish: Wish) -> Course:
        """Raises FoothillError `conflict` where the rollout is in no state for that."""
        head = self.course(rollout_id).rollout.head
        kind, phases = _WISHES[wish]
        if head.phase not in phases:
            raise FoothillError("conflict", f"Rollout {rollout_id} is {head.phase}: there is nothing to {wish}.")
        return await self._steer(rollout_id, kind(self._clock()))

    async def _steer(self, rollout_id: str, event: Event) -> Course:
        await self._apply(rollout_id, event)
        return self.course(rollout_id)

    async def withdraw(self, node: str, model: str) -> None:
        """Takes a model off one node. Raises FoothillError `not_found`, or `conflict` while a rollout has it."""
        async with self._lock:
            choose((node,), self._nodes, self._roster)
            held = [
                one for one in self._courses.values() if one.rollout.plan.model == model and node in one.rollout.nodes
            ]
            for course in held:
                if not course.ended or course.rollout.nodes[node].phase in (*IN_WORK, "reverting"):
                    raise FoothillError(
                        "conflict", f"Rollout {course.id} of {model} is under way on {node}. Abort it, or wait."
                    )
            self._publish(await self._worker.run(self._orders.withdraw, node, model))
            for course in held:
                await self._feed(await self._fresh(course.id), [Taken(node)])
            log.info("fleet: %s is taken off %s", model, node)

    async def watch(self, rollout_id: str, heartbeat_s: float = 10.0) -> AsyncIterator[Course | None]:
        """The rollout now and after every change until it ends; None as a sign of life in between."""
        seen = -1
        while not self._closing:
            course = self.course(rollout_id)
            version, ended = course.version, course.ended
            yield None if version == seen else course
            if ended:
                return
            seen = version
            async with self._changed:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._changed.wait(), heartbeat_s)

    async def end_watching(self) -> None:
        self._closing = True
        async with self._changed:
            self._changed.notify_all()

    def _check_alone(self, model: str, but: str = "") -> None:
        for course in self._courses.values():
            if course.rollout.plan.model == model and not course.ended and course.id != but:
                raise FoothillError(
                    "conflict", f"Rollout {course.id} of model {model} is under way. Abort it, or wait."
                )

    async def _apply(self, rollout_id: str, event: Event) -> None:
        async with self._lock:
            course = await self._fresh(rollout_id)
            await self._feed(course, [event])

    async def _feed(self, course: Course, events: Sequence[Event | Evident], beside: Beside = nothing) -> None:
        """Called with the lock held. What `beside` writes is kept with what has changed, or alone."""
        orders = [order for event in events for order in course.feed(event)]
        if course.is_changed:
            await self._commit(course, orders, beside=beside)
        elif beside is not nothing:
            await self._worker.run(self._state.write, beside)

    async def _fresh(self, rollout_id: str) -> Course:
        """What could not be stored has not happened: what nodes have said meanwhile has yet to be heard."""
        if rollout_id not in self._stale:
            return self.course(rollout_id)
        course = await self._worker.run(self._state.course, rollout_id)
        if course is None:
            raise FoothillError("not_found", f"There is no rollout {rollout_id[:80]!r} any more.")
        course.version = self.course(rollout_id).version + 1
        self._courses[rollout_id] = course
        self._stale.discard(rollout_id)
        await self._feed(course, self._known(course))
        return course

    def _known(self, course: Course) -> list[Event]:
        """What its nodes have last said, as if they said it now."""
        known: list[Event] = []
        for name in course.rollout.nodes:
            known.append(Seen(name, self._roster.is_online(name), self._clock()))
            report = self._roster.report(name)
            if report is not None:
                model = report.models.get(course.rollout.plan.model)
                known.append(Heard(name, report.sequence, model, self._clock()))
        return known

    async def _commit(
        self, course: Course, orders: RolloutOrders, others: Sequence[Course] = (), beside: Beside = nothing
    ) -> None:
        """Disk first, then the network. Called with the lock held."""
        try:
            publications = await self._worker.run(self._orders.commit, course, orders, others, beside)
        except BaseException:
            self._stale |= {one.id for one in (course, *others) if one.id in self._courses}
            raise
        known = course.id in self._courses
        self._courses[course.id] = course
        self._publish(publications)
        head = course.rollout.head
        if not known or self._told.get(course.id) != (head.phase, head.stage):
            self._told[course.id] = (head.phase, head.stage)
            log.info("fleet: rollout %s: %s, stage %d %s", course.id, head.phase, head.stage + 1, head.reason)
        async with self._changed:
            self._changed.notify_all()

    def _publish(self, publications: Publications) -> None:
        self._standing |= publications
        for topic, payload in publications.items():
            self._port.publish(topic, payload, retain=True)

    def _assert_all(self) -> None:
        for topic, payload in self._standing.items():
            self._port.publish(topic, payload, retain=True)

    def _open(self) -> list[Course]:
        return [course for course in self._courses.values() if course.listens]

    async def _on_status(self, topic: str, payload: bytes) -> None:
        status = self._read(topic, payload, Status)
        if status is None or not self._roster.put_status(status):
            return
        log.info("fleet: node %s is %s", status.node, status.state)
        seen = Seen(status.node, self._roster.is_online(status.node), self._clock())
        for course in self._open():
            if status.node in course.rollout.nodes:
                await self._apply(course.id, seen)

    async def _on_reported(self, topic: str, payload: bytes) -> None:
        report = self._read(topic, payload, Reported)
        if report is None or not self._roster.put_report(report):
            return
        for course in self._open():
            if report.node in course.rollout.nodes:
                model = report.models.get(course.rollout.plan.model)
                await self._apply(course.id, Heard(report.node, report.sequence, model, self._clock()))

    async def _on_audit(self, topic: str, payload: bytes) -> None:
        try:
            audit = read_audit(topic, payload, self._nodes, self._hop_key)
        except AuditRefused as refused:
            self._metrics.audit_refused(refused.reason)
            raise
        async with self._lock:
            if await self._worker.run(self._state.knows_audit, audit):
                return
            await self._count(audit)
        self._metrics.audit(agree=audit.agree)

    async def _count(self, audit: Audit) -> None:
        """For the rollout of its version that is under way, of which there is one at most."""
        for course in self._courses.values():
            if course.rollout.plan.digest == audit.digest and not course.ended:
                event = Audited(audit.node, audit.agree, self._clock())
                await self._feed(await self._fresh(course.id), [event], lambda state: state.record_audit(audit))
                return
        await self._worker.run(self._state.record_audit, audit)

    async def _on_quality(self, topic: str, payload: bytes) -> None:
        """Totals: the last word of each node is enough, however many come in between."""
        if payload:
            told = read_quality(topic, payload, self._nodes)
            self._qualities[told.node] = told

    async def book(self) -> None:
        """Books what nodes have told, once, and lets the gates know."""
        told, self._qualities = self._qualities, {}
        if not told:
            return
        try:
            async with self._lock:
                bookings = await self._worker.run(self._bookings, list(told.values()))
                judged = {course.rollout.plan.digest: course for course in self._courses.values() if not course.ended}
                for digest, course in judged.items():
                    mine = [one for one in bookings if one.digest == digest]
                    if mine:
                        await self._judge(course.id, mine)
                others = [one for one in bookings if one.digest not in judged]
                await self._worker.run(self._state.book, others)
        except BaseException:
            self._qualities = told | self._qualities
            raise

    def _bookings(self, told: Sequence[Quality]) -> list[Booking]:
        return [booking for one in told for booking in self._state.bookings(one)]

    async def _judge(self, rollout_id: str, bookings: Sequence[Booking]) -> None:
        course = await self._fresh(rollout_id)
        new = [one.new for one in bookings if course.judges(one.node)]
        events = [Counted(len(new), functools.reduce(Counts.plus, new), self._clock())] if new else []
        await self._feed(course, events, lambda state: state.book(bookings))

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
            listened_s = round(min(heard_s - before_s, _LONGEST_TICK_S) / GRAIN_S) * GRAIN_S
            for course in self._open():
                await _logged(self._apply(course.id, Tick(listened_s, self._clock())), "a tick")

    async def _keep_booking(self) -> None:
        while True:
            await asyncio.sleep(BOOK_S)
            await _logged(self.book(), "booking what nodes have counted")

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
        await self._worker.run(self._state.forget_quality)

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
            fingerprint=fingerprint_of(node, self._roster),
            enrolled_at_s=node.enrolled_at_s,
            vitals=report.vitals if report else Vitals(),
        )


async def _logged(work: Awaitable[None], what: str) -> None:
    """A failure (a full disk) is told, and does not end the task: the next round tries again."""
    try:
        await work
    except Exception:
        log.exception("fleet: %s failed; it is tried again", what)
