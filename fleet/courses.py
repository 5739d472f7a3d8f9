"""A rollout with its gate: what is seen of the new version becomes the gate's word, and the word an event of it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from fleet.judging.aims import Tally
from fleet.judging.evident import Audited, Evident
from fleet.judging.ruling import Ruling
from fleet.rollouts.advance import Orders, advance, begin
from fleet.rollouts.events import Event, Judged, Tick
from fleet.rollouts.nodes import Node
from fleet.rollouts.plan import Plan
from fleet.rollouts.rollout import FINAL, Head, Rollout


class Beginning(msgspec.Struct, frozen=True):
    """All that a rollout begins with. `online`: those of its nodes that were on line."""

    plan: Plan
    ruling: Ruling | None
    online: tuple[str, ...]
    at_s: float


class Standing(msgspec.Struct):
    """What is kept of a course beside its plan, which never changes, and its nodes."""

    head: Head
    ruling: Ruling | None = None


class Course:
    """`version` grows with every change that was stored. `beginning` and `journal`: how it began and all that has
    changed it, as far as neither is stored yet."""

    def __init__(self, rollout: Rollout, ruling: Ruling | None, version: int = 0) -> None:
        self.rollout = rollout
        self.ruling = ruling
        self.version = version
        self.beginning: Beginning | None = None
        self.journal: list[Event | Evident] = []
        self._quiet: Tick | None = None

    @classmethod
    def begin(cls, plan: Plan, ruling: Ruling | None, online: Collection[str], at_s: float) -> tuple[Course, Orders]:
        """With what its first nodes are to be told."""
        rollout, orders = begin(plan, online, at_s)
        course = cls(rollout, ruling)
        course.beginning = Beginning(plan, ruling, tuple(name for name in plan.previous if name in online), at_s)
        return course, orders

    @classmethod
    def of(cls, plan: Plan, standing: Standing, nodes: dict[str, Node], version: int = 0) -> Course:
        """Nodes go in the order in which they were planned."""
        ordered = {name: nodes[name] for stage in plan.stages for name in stage}
        return cls(Rollout(plan, standing.head, ordered), standing.ruling, version)

    @property
    def standing(self) -> Standing:
        return Standing(self.rollout.head, self.ruling)

    @property
    def id(self) -> str:
        return self.rollout.plan.id

    @property
    def ended(self) -> bool:
        return self.rollout.head.phase in FINAL

    @property
    def listens(self) -> bool:
        """Whether anything that its nodes say can still mean something: it is under way, or some are not back yet."""
        waiting = self.rollout.count("waiting", "absent", "assigned", "settling", "reverting")
        return not self.ended or waiting > 0

    @property
    def is_changed(self) -> bool:
        """Whether anything happened that is worth a write. Waiting alone is not: a restart waits a little more."""
        return bool(self.journal) or self.beginning is not None

    def feed(self, event: Event | Evident) -> Orders:
        """As `fleet.rollouts.advance.advance`."""
        before = self._said()
        orders = self._seen(event) if isinstance(event, Evident) else advance(self.rollout, event)
        self._note(event, bool(orders) or self._said() != before)
        return orders

    def judges(self, node: str) -> bool:
        """Whether what is seen of the new version on `node` counts: later stages too, for the same tests go on over
        all nodes that serve it. Their alpha holds for every stopping time, so that listening on costs no good version
        more than it allows."""
        gate, known = self.rollout.plan.gate, self.rollout.nodes.get(node)
        if self.ruling is None or gate is None or known is None or self.ended:
            return False
        return self.rollout.head.stage >= gate.stage and known.phase in ("settling", "healthy")

    def stored(self) -> None:
        """All that has changed is on disk."""
        self.rollout.changed.clear()
        self.beginning = None
        self.journal.clear()
        self.version += 1

    def _note(self, event: Event | Evident, loud: bool) -> None:
        """Ticks that changed nothing go in front of what next changes something, as one."""
        if isinstance(event, Tick) and self._quiet is not None:
            event = Tick(self._quiet.listened_s + event.listened_s, event.at_s)
            self._quiet = None
        if loud:
            self.journal += [event] if self._quiet is None else [self._quiet, event]
            self._quiet = None
        elif isinstance(event, Tick):
            self._quiet = event

    def _said(self) -> tuple[object, ...]:
        head = self.rollout.head
        told = (head.phase, head.stage, head.paused, head.promoted, head.decision, head.reason, head.ended_at_s)
        return (*told, self.ruling, self.rollout.edits)

    def _seen(self, event: Evident) -> Orders:
        if self.ruling is None or self.ended or (isinstance(event, Audited) and not self.judges(event.node)):
            return []
        if isinstance(event, Audited):
            self.ruling = self.ruling.audited(Tally(1, int(not event.agree)))
        else:
            self.ruling = self.ruling.counted(event.counts)
        return advance(self.rollout, Judged(self.ruling.decision, self.ruling.reason, event.at_s))
