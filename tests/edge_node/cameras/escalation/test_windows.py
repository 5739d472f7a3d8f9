"""When a thing is judged, and by which look."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.escalation.config import EscalationConfig
from edge_node.cameras.escalation.subjects import Look, Subject
from edge_node.cameras.escalation.windows import Windows
from edge_node.cameras.sources.shot import Still
from edge_node.pipelines import Looked

PICTURE = np.zeros((2, 2, 3), np.uint8)


def look(at_s: float, score: float = 0.5, *, event: str = "e1", broken: bool = False) -> Look:
    subject = Subject(event, "person", score, None, 0.0, (0.0, 0.0, 1.0, 1.0), broken=broken)
    return Look(subject, Still(PICTURE, at_s, 1), cast(Looked, None))


def windows(look_s: float = 1.0, again_s: float = 10.0) -> Windows:
    return Windows(EscalationConfig(look_s=look_s, again_s=again_s))


def test_the_best_look_of_the_first_second_is_judged() -> None:
    judged = windows()
    assert [judged.saw(look(at_s, score)) for at_s, score in ((0, 0.4), (0.5, 0.9), (0.8, 0.3))] == [None] * 3
    due = judged.saw(look(1.0, 0.2))
    assert due is not None
    assert (due.shot.at_s, due.subject.score) == (0.5, 0.9)
    assert judged.saw(look(1.1, 1.0)) is None


def test_without_patience_the_first_look_is_judged() -> None:
    assert windows(look_s=0.0).saw(look(3.0)) is not None


def test_it_is_judged_again_after_a_while_by_a_new_look() -> None:
    judged = windows(look_s=0.0)
    assert judged.saw(look(0.0, 0.9)) is not None
    assert judged.saw(look(9.9)) is None
    due = judged.saw(look(10.0, 0.1))
    assert due is not None
    assert due.shot.at_s == 10.0


def test_where_it_is_judged_once_a_track_that_breaks_is_judged_once_more() -> None:
    judged = windows(look_s=0.0, again_s=0.0)
    assert judged.saw(look(0.0)) is not None
    assert judged.saw(look(1.0)) is None
    assert judged.saw(look(2.0, broken=True)) is not None
    assert judged.saw(look(3.0, broken=True)) is None


def test_a_track_that_breaks_waits_only_if_the_cloud_was_asked_about_it() -> None:
    judged = windows(look_s=0.0)
    for event in ("asked", "kept"):
        assert judged.saw(look(0.0, event=event)) is not None
    judged.kept("kept")
    assert judged.saw(look(1.0, event="kept", broken=True)) is not None
    assert judged.saw(look(1.0, event="asked", broken=True)) is None
    assert judged.saw(look(10.0, event="asked", broken=True)) is not None


def test_a_track_is_broken_whichever_of_its_pictures_is_the_best() -> None:
    judged = windows()
    judged.saw(look(0.0, 0.9))
    due = judged.saw(look(1.0, 0.1, broken=True))
    assert due is not None
    assert (due.shot.at_s, due.subject.broken) == (0.0, True)


@pytest.mark.parametrize("set_to_s", [0.0, 995.0])
def test_a_clock_that_is_set_back_postpones_nothing(set_to_s: float) -> None:
    judged = windows()
    assert judged.saw(look(1000.0)) is None
    assert judged.saw(look(1000.5)) is None
    assert judged.saw(look(set_to_s)) is None
    assert judged.saw(look(set_to_s + 0.6)) is not None
    assert judged.saw(look(set_to_s + 10.0)) is None
    assert judged.saw(look(set_to_s + 10.7)) is None
    assert judged.saw(look(set_to_s + 11.7)) is not None


def test_what_is_gone_before_its_second_is_over_is_judged_by_what_was_seen() -> None:
    judged = windows()
    for event in ("e1", "e2"):
        judged.saw(look(0.0, event=event))
    assert [due.subject.event for due in judged.without(frozenset(("e2",)))] == ["e1"]
    assert judged.without(frozenset(("e2",))) == []


@given(
    st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0, 1), st.booleans()), max_size=60),
    st.floats(0, 3),
    st.floats(0.1, 5),
)
def test_no_two_judgements_of_one_track_are_closer_than_the_bound(
    steps: list[tuple[float, float, bool]], look_s: float, again_s: float
) -> None:
    judged, at_s, times = windows(look_s, again_s), 0.0, []
    for step_s, score, broken in steps:
        at_s += step_s
        if judged.saw(look(at_s, score, broken=broken)) is not None:
            times.append(at_s)
    assert all(later - earlier >= again_s for earlier, later in pairwise(times))
