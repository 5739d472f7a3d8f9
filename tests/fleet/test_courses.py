"""What is kept of rollouts: all of it comes back, that of earlier versions too, and audits become the gate's word."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.messages import ModelReport
from contracts.quality import Counts
from fleet.courses import Course
from fleet.judging.aims import Aims, GateSettings, Margins, Tally, aims_for
from fleet.judging.evident import Audited, Counted
from fleet.judging.ruling import Evidence, Ruling
from fleet.rollouts.advance import begin
from fleet.rollouts.events import Assigned, Heard, Tick
from fleet.rollouts.plan import Policy
from fleet.rollouts.windows import Window
from fleet.state import _SCHEMA, State
from tests.fleet.rollouts.fleet import NEW, OLD, plan_of

SERVED = Counts(runs=1000, failed=10, judged=990, doubtful=100, looks=300, latency=(0, 0, 990))
AIMS = aims_for(SERVED, Tally(200, 4), GateSettings(margins=Margins(disagreeing=0.1)))
AUDITS_ALONE = aims_for(Counts(), Tally(200, 4), GateSettings(margins=Margins(disagreeing=0.1)))
OLD_TERMS = {
    "p0": 0.05,
    "p1": 0.15,
    "alpha": 0.01,
    "beta": 0.05,
    "baseline": {"n": 100, "disagreements": 2},
    "source": "audits",
    "baseline_delta": 0.05,
}


def course_of(*stages: str, aims: Aims = AUDITS_ALONE, **more: Any) -> Course:
    plan = plan_of(*stages, gate=0, **more)
    rollout, _ = begin(plan, plan.previous, 0.0)
    course = Course(rollout, Ruling(aims))
    for sequence, name in enumerate(plan.stages[0], start=1):
        course.feed(Assigned(name, sequence))
        course.feed(Heard(name, sequence, ModelReport(NEW, "active", NEW), 1.0))
    return course


def decision(course: Course) -> str:
    assert course.ruling is not None
    return course.ruling.decision


def audits(course: Course) -> Evidence:
    assert course.ruling is not None
    (evidence,) = (one for one in course.ruling.evidence() if one.stream == "disagreeing")
    return evidence


def told(course: Course) -> tuple[Any, ...]:
    return msgspec.to_builtins(course.standing), course.rollout.plan, msgspec.to_builtins(course.rollout.nodes)


def test_audits_of_nodes_that_serve_it_decide() -> None:
    course = course_of("a", "b")
    assert not course.feed(Audited("b", False, 2.0))
    for _ in range(100):
        orders = course.feed(Audited("a", True, 2.0))
        if orders:
            break
    assert [order.node for order in orders] == ["b"]
    assert (decision(course), audits(course).k) == ("accept", 0)


def test_what_was_accepted_stays_so_until_it_is_rejected() -> None:
    course = course_of("a", "b")
    while course.rollout.head.decision != "accept":
        course.feed(Audited("a", True, 2.0))
    course.feed(Audited("a", False, 2.0))
    assert decision(course) == "accept"
    while not course.feed(Audited("a", False, 3.0)):
        pass
    assert decision(course) == "reject"
    assert course.rollout.head.phase == "reverting"
    assert "disagreeing" in course.rollout.head.reason


def test_what_nodes_count_of_it_decides_as_well() -> None:
    course = course_of("a", "b", aims=AIMS)
    for _ in range(300):
        course.feed(Audited("a", True, 2.0))
    assert decision(course) == "continue"
    assert [name for name in ("a", "b", "c") if course.judges(name)] == ["a"], "b does not serve it yet"
    orders = [order for _ in range(5) for order in course.feed(Counted(1, SERVED, 3.0))]
    assert ([order.node for order in orders], decision(course)) == (["b"], "accept")


def test_a_version_that_fails_is_taken_back_whatever_audits_say() -> None:
    course = course_of("a", "b", aims=AIMS)
    for _ in range(300):
        course.feed(Audited("a", True, 2.0))
    course.feed(Counted(1, Counts(runs=100, failed=30), 3.0))
    assert course.rollout.head.phase == "reverting"
    assert course.rollout.head.reason.startswith("gate: failed 30 of 100")


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    course = course_of("ab", "cd", windows={"d": Window("02:00", "04:00", "Europe/Berlin")})
    course.feed(Audited("a", False, 2.0))
    course.feed(Tick(0.5, 3.0))
    state = State(tmp_path / "fleet.db")
    state.put_course(course)
    state.close()
    (again,) = State(tmp_path / "fleet.db").courses()
    assert told(again) == told(course)
    assert [*again.rollout.nodes] == [*course.rollout.nodes]


def test_only_nodes_that_have_changed_are_written(tmp_path: Path) -> None:
    state, course = State(tmp_path / "fleet.db"), course_of("ab", "cd")
    state.put_course(course)
    course.stored()
    course.feed(Heard("a", 9, ModelReport(NEW, "failed"), 2.0))
    assert course.rollout.changed == {"a", "b"}
    state.put_course(course)
    (again,) = state.courses()
    assert told(again) == told(course)


OLD_ROLLOUT: dict[str, Any] = {
    "plan": {
        "id": "digits-2-abc",
        "bundle": "digits@2",
        "model": "digits",
        "digest": NEW,
        "stages": [["a"], ["b", "c"]],
        "previous": {"a": OLD, "b": OLD, "c": ""},
        "deadline_s": 60.0,
        "silence_s": 120.0,
        "gate": {"stage": 0, "terms": OLD_TERMS},
    },
    "phase": "staging",
    "stage": 1,
    "nodes": {
        "a": {"phase": "active", "sequence": 3, "error": ""},
        "b": {"phase": "assigned", "sequence": 4, "error": ""},
        "c": {"phase": "assigned", "sequence": 5, "error": ""},
    },
    "started_at_s": 10.0,
    "waited_s": 2.0,
    "tally": {"n": 40, "disagreements": 1},
    "reason": "",
    "decided_at_s": None,
    "ended_at_s": None,
}


def opened_with(tmp_path: Path, *rollouts: dict[str, Any]) -> State:
    """A database of the first version."""
    with sqlite3.connect(tmp_path / "fleet.db") as database:
        database.executescript(_SCHEMA)
        for number, rollout in enumerate(rollouts):
            database.execute("INSERT INTO rollouts (id, body) VALUES (?, ?)", (number, msgspec.msgpack.encode(rollout)))
    database.close()
    return State(tmp_path / "fleet.db")


def test_one_that_was_under_way_under_an_earlier_version_goes_on(tmp_path: Path) -> None:
    opened_with(tmp_path, OLD_ROLLOUT).close()
    (course,) = State(tmp_path / "fleet.db").courses()
    assert (course.rollout.head.phase, course.rollout.head.stage) == ("staging", 1)
    assert course.rollout.plan.policy == Policy(healthy_deadline_s=60.0)
    assert (audits(course).n, decision(course)) == (40, "accept")
    for name, sequence in (("b", 4), ("c", 5)):
        course.feed(Heard(name, sequence, ModelReport(NEW, "active", NEW), 20.0))
    assert course.rollout.head.phase == "completed"


@pytest.mark.parametrize("phase", ["judging", "reverting", "completed", "rolled-back"])
def test_every_state_of_an_earlier_version_is_read(tmp_path: Path, phase: str) -> None:
    node = "reverting" if phase in ("reverting", "rolled-back") else "active"
    nodes = {name: {"phase": node, "sequence": 3, "error": ""} for name in "abc"}
    state = opened_with(tmp_path, OLD_ROLLOUT | {"phase": phase, "nodes": nodes})
    (course,) = state.courses()
    assert course.rollout.head.phase == phase
    course.feed(Heard("a", 3, ModelReport(OLD, "active", OLD), 20.0))


def test_what_cannot_be_stored_has_not_happened(tmp_path: Path) -> None:
    state, course = State(tmp_path / "fleet.db"), course_of("ab")
    state.put_course(course)
    course.stored()
    before = told(course)

    def half_way() -> None:
        with state.transaction():
            course.feed(Heard("a", 9, ModelReport(NEW, "failed"), 2.0))
            state.put_course(course)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        half_way()
    again = state.course(course.id)
    assert again is not None
    assert told(again) == before
