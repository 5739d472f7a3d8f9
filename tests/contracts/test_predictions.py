"""The holder's reason in the body of a prediction, and comparable answers."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.predictions import (
    OVERLAP,
    Box,
    Classification,
    Prediction,
    Scored,
    Sides,
    label_answer,
    overlap,
    same_thing,
    things_answer,
    with_reason,
)

ANSWER = Classification(
    model="digits",
    bundle="digits-edge@1",
    confidence=0.25,
    tier="edge",
    node="edge-fra",
    reason="unsettled",
    request_id="r1",
    label="3",
    score=0.25,
    top=(Scored("3", 0.25),),
)


def test_only_the_reason_changes() -> None:
    expected = msgspec.structs.replace(ANSWER, reason="confident")
    told = with_reason(msgspec.json.encode(ANSWER), "application/json; charset=utf-8", "confident")
    assert msgspec.json.decode(told, type=Prediction) == expected
    packed = with_reason(msgspec.msgpack.encode(ANSWER), "application/msgpack", "confident")
    assert msgspec.msgpack.decode(packed, type=Prediction) == expected


@given(st.binary(max_size=100), st.sampled_from(["application/json", "application/msgpack", "image/png", ""]))
def test_what_is_no_prediction_stays_as_it_is(body: bytes, media_type: str) -> None:
    assert with_reason(body, media_type, "confident") == body


@given(st.lists(st.integers(0, 1000), max_size=100), st.lists(st.integers(0, 1000), max_size=100))
def test_answers_are_equal_exactly_when_their_labels_are(first: list[int], second: list[int]) -> None:
    assert (label_answer(first) == label_answer(second)) == (first == second)
    assert len(label_answer(first)) <= 64


labels_found = st.lists(
    st.lists(st.text(max_size=8) | st.sampled_from(["none", "", "person", "a,b", "a;b", "%"]), max_size=4), max_size=4
)


@given(labels_found, labels_found)
@example([["a,b"]], [["a", "b"]])
@example([["a;b"]], [["a"], ["b"]])
@example([["none"]], [[]])
@example([[""]], [[]])
@example([["%6Eone"]], [["none"]])
def test_two_detections_are_equal_exactly_when_they_name_the_same_in_each_row(
    first: list[list[str]], second: list[list[str]]
) -> None:
    same = [set(labels) for labels in first] == [set(labels) for labels in second]
    assert (things_answer(first) == things_answer(second)) == same


@given(labels_found.filter(bool))
@example([["two\r\nlines"]])
@example([["Fußgänger"]])
def test_what_was_found_fits_into_a_header(rows: list[list[str]]) -> None:
    told = things_answer(rows)
    assert re.fullmatch(r"[A-Za-z0-9_.~%,;-]{1,64}", told)


def test_a_label_that_looks_like_the_digest_of_others_is_none() -> None:
    many = [[f"label-{number}" for number in range(20)]]
    assert things_answer([[things_answer(many)]]) != things_answer(many)
    assert things_answer([["person", "traffic light"], []]) == "person,traffic%20light;none"


BOX = (100.0, 100.0, 140.0, 180.0)
sides = st.builds(
    lambda left, top, width, height: (left, top, left + width, top + height), *[st.floats(0, 100, width=32)] * 4
)


def test_overlap_is_the_share_of_what_both_cover() -> None:
    assert overlap(BOX, BOX) == 1.0
    assert overlap(BOX, (140.0, 100.0, 180.0, 180.0)) == 0.0
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0.0


@given(sides, sides, st.sampled_from(["person", "dog"]))
def test_the_same_thing_has_the_same_label_and_overlaps_by_enough(one: Sides, other: Sides, label: str) -> None:
    there, again = Box("person", 0.9, one), Box(label, 0.1, other)
    assert 0.0 <= overlap(one, other) <= 1.0 + 1e-9
    assert (
        same_thing(there, again) == same_thing(again, there) == (label == "person" and overlap(one, other) >= OVERLAP)
    )
