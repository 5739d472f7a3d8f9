"""The confidence rule: a temperature softmax, and a batch as sure as its least sure row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.manifest import ConfidenceRule, Isotonic
from runtime.serving.models import confidence
from runtime.serving.models.found import Found

LOGITS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-80, 80, width=32)
)


@given(LOGITS, st.floats(0.05, 20))
def test_softmax_gives_probabilities_in_the_order_of_the_logits(logits: np.ndarray, temperature: float) -> None:
    probabilities = confidence.softmax(logits, temperature)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    rows = np.arange(len(logits))
    assert (probabilities[rows, logits.argmax(axis=1)] == probabilities.max(axis=1)).all()


def test_a_higher_temperature_is_less_sure() -> None:
    logits = np.array([[2.0, 0.0]], np.float32)
    assert confidence.softmax(logits, 1.0).max() == pytest.approx(1 / (1 + math.exp(-2)))
    assert confidence.softmax(logits, 4.0).max() == pytest.approx(1 / (1 + math.exp(-0.5)))


@given(LOGITS, st.floats(0.1, 10))
def test_probabilities_take_the_same_rule_as_the_logits_behind_them(logits: np.ndarray, temperature: float) -> None:
    logits = logits / 8
    from_logits = confidence.softmax(logits, temperature)
    np.testing.assert_allclose(confidence.sharpen(confidence.softmax(logits), temperature), from_logits, rtol=1e-6)


def sure_of(probabilities: np.ndarray, isotonic: Isotonic | None = None) -> float:
    """Of one request that has all the rows."""
    return confidence.of_each(probabilities, [len(probabilities)], isotonic)[0]


def test_a_batch_is_as_sure_as_its_least_sure_row() -> None:
    assert sure_of(np.array([[0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])) == 0.6


MAP = Isotonic((0.0, 0.5, 1.0), (0.2, 0.3, 0.9))


@pytest.mark.parametrize("isotonic", [None, MAP])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_never_sure(bad: float, isotonic: Isotonic | None) -> None:
    logits = np.array([[5.0, 0.0], [bad, 0.0]], np.float32)
    assert sure_of(confidence.softmax(logits), isotonic) == 0.0


def test_a_map_is_linear_between_its_knots() -> None:
    mapped = confidence.calibrated(np.array([0.0, 0.25, 0.5, 0.75, 1.0]), MAP)
    np.testing.assert_allclose(mapped, [0.2, 0.25, 0.3, 0.6, 0.9])
    assert sure_of(np.array([[0.9, 0.1], [0.75, 0.25]]), MAP) == pytest.approx(0.6)


@given(LOGITS)
def test_the_least_sure_row_is_the_same_before_and_after_the_map(logits: np.ndarray) -> None:
    probabilities = confidence.softmax(logits)
    rows = [sure_of(row[None], MAP) for row in probabilities]
    assert sure_of(probabilities, MAP) == pytest.approx(min(rows), rel=1e-12)


def test_huge_logits_do_not_overflow() -> None:
    assert sure_of(confidence.softmax(np.array([[3e38, -3e38]], np.float32))) == 1.0


scores_found = st.lists(st.tuples(st.floats(0.0, 1.0, width=32), st.integers(0, 3)), max_size=8)


def found_of(things: list[tuple[float, int]]) -> Found:
    things = sorted(things, key=lambda thing: -thing[0])
    scores, labels = [score for score, _ in things], [label for _, label in things]
    return Found(np.zeros((len(things), 4), np.float32), np.array(scores, np.float32), np.array(labels, np.int32))


def rule_of(isotonic: Isotonic | None) -> ConfidenceRule:
    return ConfidenceRule(1.0, 0.5, 0.05, 0.05, 100, True, "a" * 32, "sha256:" + "c" * 64, isotonic)


@pytest.mark.parametrize("isotonic", [None, MAP])
@given(st.lists(scores_found, min_size=1, max_size=4))
def test_a_picture_is_as_sure_as_the_least_sure_label_in_it_by_its_best_object(
    isotonic: Isotonic | None, rows: list[list[tuple[float, int]]]
) -> None:
    rule = rule_of(isotonic)
    found = [found_of(things) for things in rows]
    each = confidence.of_pictures(found, [True] * len(rows), range(1, len(rows) + 1), rule)
    for things, sure in zip(rows, each, strict=True):
        best = {label: max(score for score, other in things if other == label) for _, label in things}
        assert sure == (confidence.sure_of(min(best.values()), rule) if best else None)
    (whole,) = confidence.of_pictures(found, [True] * len(rows), [len(rows)], rule)
    told = [sure for sure in each if sure is not None]
    assert whole == (min(told) if len(told) == len(each) or 0.0 in told else None)


@pytest.mark.parametrize("isotonic", [None, MAP])
def test_a_picture_with_outputs_that_are_no_numbers_is_never_sure_whatever_was_found(
    isotonic: Isotonic | None,
) -> None:
    found, rule = [found_of([(0.9, 1)]), found_of([])], rule_of(isotonic)
    assert confidence.of_pictures(found, [False, True], [1, 2], rule) == [0.0, None]
    assert confidence.of_pictures(found, [True, False], [2], rule) == [0.0]


def test_a_score_goes_through_the_map_of_the_rule() -> None:
    assert confidence.sure_of(0.75, None) is None
    assert confidence.sure_of(0.75, rule_of(None)) == 0.75
    assert confidence.sure_of(0.75, rule_of(MAP)) == pytest.approx(0.6)
    assert [confidence.sure_of(score, rule_of(MAP)) for score in (math.nan, math.inf, -math.inf)] == [0.0] * 3
    assert confidence.sure_of(1.0 + 1e-6, rule_of(None)) == 1.0
