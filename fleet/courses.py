"""A rollout with its gate: what is seen of the new version becomes the gate's word, and the word an event of it."""

from __future__ import annotations

import msgspec

from contracts.quality import Counts
from fleet.judging.aims import Tally
from fleet.judging.ruling import Ruling
from fleet.rollouts.advance import Orders, advance
from fleet.rollouts.events import Event, Judged
from fleet.rollouts.nodes import Node
from fleet.rollouts.plan import Plan
from fleet.rollouts.rollout import FINAL, Head, Rollout


class Audited(msgspec.Struct, frozen=True):
    """An audit of the new version on one node."""

    node: str
    agree: bool
    at_s: float


class Counted(msgspec.Struct, frozen=True):
    """What one node has newly counted of the new version."""

    node: str
    counts: Counts
    at_s: float


Evident = Audited | Counted


class CourseRow(msgspec.Struct):
    """What is kept of a course, beside its nodes."""

    plan: Plan
    head: Head
    ruling: Ruling | None = None


class Course:
    """`version` grows with every change that was stored."""

    def __init__(self, rollout: Rollout, ruling: Ruling | None, version: int = 0) -> None:
        self.rollout = rollout
        self.ruling = ruling
        self.version = version

    @classmethod
    def of(cls, row: CourseRow, nodes: dict[str, Node], version: int = 0) -> Course:
        """Nodes go in the order in which they were planned."""
        ordered = {name: nodes[name] for stage in row.plan.stages for name in stage}
        return cls(Rollout(row.plan, row.head, ordered), row.ruling, version)

    @property
    def row(self) -> CourseRow:
        return CourseRow(self.rollout.plan, self.rollout.head, self.ruling)

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

    def feed(self, event: Event | Evident) -> Orders:
        """As `fleet.rollouts.advance.advance`."""
        return self._seen(event) if isinstance(event, Evident) else advance(self.rollout, event)

    def stored(self) -> None:
        """All that has changed is on disk."""
        self.rollout.changed.clear()
        self.version += 1

    def said(self) -> tuple[object, ...]:
        """What is worth a write, beside its nodes: waiting alone is not, for a restart waits a little more."""
        head = self.rollout.head
        told = (head.phase, head.stage, head.paused, head.promoted, head.decision, head.reason, head.ended_at_s)
        return (*told, self.ruling)

    def _seen(self, event: Evident) -> Orders:
        """Counts for the gate, in later stages too: the same tests go on over all nodes that serve the version.

        Their alpha holds for every stopping time, so that listening on costs no good version more than it allows.
        """
        gate, node = self.rollout.plan.gate, self.rollout.nodes.get(event.node)
        if self.ruling is None or gate is None or node is None or self.ended:
            return []
        if self.rollout.head.stage < gate.stage or node.phase not in ("settling", "healthy"):
            return []
        if isinstance(event, Audited):
            self.ruling = self.ruling.audited(Tally(1, int(not event.agree)))
        else:
            self.ruling = self.ruling.counted(event.counts)
        return advance(self.rollout, Judged(self.ruling.decision, self.ruling.reason, event.at_s))
