"""A rollout with its gate: audits of the new version become the gate's word, and the word an event of the rollout."""

from __future__ import annotations

import msgspec

from fleet import gates
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


class Trial(msgspec.Struct, frozen=True):
    """What was fixed before the first audit was seen, and what was seen since."""

    terms: gates.Terms
    tally: gates.Tally = gates.Tally()

    @property
    def evidence(self) -> gates.Evidence:
        return gates.judge(self.terms, self.tally)


class CourseRow(msgspec.Struct):
    """What is kept of a course, beside its nodes."""

    plan: Plan
    head: Head
    trial: Trial | None = None


class Course:
    """`version` grows with every change that was stored."""

    def __init__(self, rollout: Rollout, trial: Trial | None, version: int = 0) -> None:
        self.rollout = rollout
        self.trial = trial
        self.version = version

    @classmethod
    def of(cls, row: CourseRow, nodes: dict[str, Node], version: int = 0) -> Course:
        """Nodes go in the order in which they were planned."""
        ordered = {name: nodes[name] for stage in row.plan.stages for name in stage}
        return cls(Rollout(row.plan, row.head, ordered), row.trial, version)

    @property
    def row(self) -> CourseRow:
        return CourseRow(self.rollout.plan, self.rollout.head, self.trial)

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
    def evidence(self) -> gates.Evidence | None:
        """The gate's first word stands, until it rejects."""
        if self.trial is None:
            return None
        evidence, said = self.trial.evidence, self.rollout.head.decision
        stands = said == "reject" or (said == "accept" and evidence.decision == "continue")
        return msgspec.structs.replace(evidence, decision=said) if stands else evidence

    def feed(self, event: Event | Audited) -> Orders:
        """As `fleet.rollouts.advance.advance`."""
        return self._audited(event) if isinstance(event, Audited) else advance(self.rollout, event)

    def stored(self) -> None:
        """All that has changed is on disk."""
        self.rollout.changed.clear()
        self.version += 1

    def said(self) -> tuple[object, ...]:
        """What is worth a write, beside its nodes: waiting alone is not, for a restart waits a little more."""
        head = self.rollout.head
        told = (head.phase, head.stage, head.paused, head.promoted, head.decision, head.reason, head.ended_at_s)
        return (*told, self.trial)

    def _audited(self, event: Audited) -> Orders:
        """Counts for the gate, in later stages too: the same test goes on over all nodes that serve the version.

        The test's alpha holds for every stopping time, so that listening on costs no good version more than it allows.
        """
        gate, node = self.rollout.plan.gate, self.rollout.nodes.get(event.node)
        if self.trial is None or gate is None or node is None or self.ended:
            return []
        if self.rollout.head.stage < gate.stage or node.phase not in ("settling", "healthy"):
            return []
        self.trial = Trial(self.trial.terms, self.trial.tally.counted(event.agree))
        evidence = self.trial.evidence
        return advance(self.rollout, Judged(evidence.decision, gates.told(evidence), event.at_s))
