"""From the audit log to what must have become of the fleet: every rollout is played again, event by event, through the
same table and the same tests, and whatever does not follow is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from fleet.auditing.entries import Assignments, Began, Happened, Happening, Kept, Opened, Withdrawn
from fleet.courses import Course
from fleet.rollouts.events import Assign, Assigned
from fleet.rollouts.rollout import Head, Phase


class Step(msgspec.Struct, frozen=True):
    """A decision that follows from what was logged up to entry `seq`: a rollout came to `phase` of `stage`, from 1."""

    seq: int
    at_s: float
    rollout: str
    phase: Phase
    stage: int
    reason: str


class Holding(msgspec.Struct, frozen=True):
    """What a fleet holds, short enough to be compared: the digest of each rollout and its nodes, and of what every node
    is to serve."""

    rollouts: dict[str, str]
    assignments: str


class Replay:
    """`steps` and `faults` in the order of entries."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.faults: list[str] = []
        self._courses: dict[str, Course] = {}
        self._due: dict[str, list[Assign]] = {}
        self._assignments: Assignments = {}
        self._sequences: dict[str, int] = {}

    def take(self, seq: int, at_s: float, body: object) -> None:
        """The next entry. What changes neither rollouts nor assignments has nothing to follow from."""
        handler = _TABLE.get(type(body))
        if handler is not None:
            handler(self, seq, at_s, body)

    def holding(self) -> Holding:
        """What the fleet must hold now."""
        for rollout_id, due in self._due.items():
            if due:
                self.faults.append(f"rollout {rollout_id} ordered {due[0].node}, and no document says so")
        digests = {rollout_id: digest_of(course) for rollout_id, course in self._courses.items()}
        return Holding(digests, digest_of_assignments(self._assignments))

    def course(self, rollout_id: str) -> Course | None:
        return self._courses.get(rollout_id)

    def _opened(self, _: int, __: float, body: Opened) -> None:
        self._assignments = {node: dict(models) for node, models in body.assignments.items()}
        self._courses = {kept.plan.id: _course_of(kept) for kept in body.rollouts}

    def _began(self, seq: int, at_s: float, body: Began) -> None:
        beginning = body.beginning
        plan = beginning.plan
        if plan.id in self._courses:
            self.faults.append(f"entry {seq}: rollout {plan.id} begins a second time")
            return
        course, orders = Course.begin(plan, beginning.ruling, beginning.online, beginning.at_s)
        course.stored()
        self._courses[plan.id], self._due[plan.id] = course, orders
        self._step(seq, at_s, course)

    def _happened(self, seq: int, at_s: float, body: Happened) -> None:
        course = self._courses.get(body.rollout)
        if course is None:
            self.faults.append(f"entry {seq} speaks of rollout {body.rollout}, which never began")
            return
        for event in body.events:
            before = _place(course.rollout.head)
            self._feed(seq, course, event)
            if _place(course.rollout.head) != before:
                self._step(seq, at_s, course)
        course.stored()
        for order in self._due.pop(course.id, []):
            self.faults.append(f"entry {seq}: rollout {course.id} must tell {order.node}, and no document does")

    def _feed(self, seq: int, course: Course, event: Happening) -> None:
        if isinstance(event, Assigned):
            self._issued(seq, course, event)
        self._due.setdefault(course.id, []).extend(course.feed(event))

    def _issued(self, seq: int, course: Course, event: Assigned) -> None:
        due = self._due.get(course.id)
        if not due or due[0].node != event.node:
            self.faults.append(f"entry {seq}: {event.node} was told of rollout {course.id}, which did not order it")
            return
        order = due.pop(0)
        self._number(seq, event.node, event.sequence)
        models = self._assignments.setdefault(order.node, {})
        if order.digest:
            models[course.rollout.plan.model] = order.digest
        else:
            models.pop(course.rollout.plan.model, None)

    def _withdrawn(self, seq: int, _: float, body: Withdrawn) -> None:
        self._number(seq, body.node, body.sequence)
        self._assignments.get(body.node, {}).pop(body.model, None)

    def _number(self, seq: int, node: str, sequence: int) -> None:
        if sequence <= self._sequences.get(node, 0):
            self.faults.append(f"entry {seq}: document {sequence} of {node} is not above the one before")
        self._sequences[node] = sequence

    def _step(self, seq: int, at_s: float, course: Course) -> None:
        head = course.rollout.head
        self.steps.append(Step(seq, at_s, course.id, head.phase, head.stage + 1, head.reason))


def digest_of(course: Course) -> str:
    """Of a rollout as it stands, with all its nodes."""
    return _digest((course.standing, course.rollout.nodes))


def digest_of_assignments(assignments: Assignments) -> str:
    return _digest({node: models for node, models in assignments.items() if models})


def _digest(content: object) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _course_of(kept: Kept) -> Course:
    return Course.of(kept.plan, kept.standing, kept.nodes)


def _place(head: Head) -> tuple[Phase, int]:
    return head.phase, head.stage


_TABLE: dict[type, Callable[[Replay, int, float, Any], None]] = {
    Opened: Replay._opened,
    Began: Replay._began,
    Happened: Replay._happened,
    Withdrawn: Replay._withdrawn,
}
