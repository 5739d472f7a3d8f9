"""The holder's reason in the body of a prediction, and comparable answers."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contracts.predictions import Classification, Prediction, Scored, label_answer, with_reason

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
