"""The confidence maps: the right temperature, a map that rises and keeps the order, and the better of both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.manifest import MAX_KNOTS, Isotonic
from model_compiler.calibration import (
    Maps,
    choose_maps,
    choose_score_maps,
    confidence_of,
    confidence_of_scores,
    fit_isotonic,
    fit_temperature,
    losses_of,
    reliability,
)
from model_compiler.data.samples import Floats, Numbers
from model_compiler.errors import CompileError
from tests.model_compiler.drawn import drawn


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_that_drew_the_answers_is_found(heat: float) -> None:
    assert fit_temperature(*drawn(20_000, heat, seed=1)) == pytest.approx(heat, rel=0.05)


def test_the_fitted_temperature_is_the_least_loss() -> None:
    logits, answers = drawn(500, 2.0, seed=2)

    def loss(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(logits)), answers]).mean())

    fitted = fit_temperature(logits, answers)
    assert loss(fitted) <= min(loss(fitted * 0.99), loss(fitted * 1.01))


@pytest.mark.parametrize(("sign", "bound"), [(1, 0.05), (-1, 20.0)])
def test_answers_that_never_or_always_differ_stop_at_the_bounds(sign: int, bound: float) -> None:
    logits, _ = drawn(50, 1.0, seed=3)
    assert fit_temperature(logits, (sign * logits).argmax(axis=1)) == pytest.approx(bound, rel=1e-3)


@given(st.integers(0, 10_000), st.floats(0.05, 20.0))
def test_confidence_lies_between_even_and_certain(seed: int, temperature: float) -> None:
    logits, _ = drawn(20, 1.0, seed)
    confidence = confidence_of(logits * 100, Maps(temperature))
    assert ((confidence >= 0.1 - 1e-12) & (confidence <= 1.0)).all()


def test_logits_that_are_no_numbers_have_no_confidence() -> None:
    logits = np.array([[np.nan, 0.0], [np.inf, 0.0], [5.0, 0.0]], np.float32)
    confidence = confidence_of(logits, Maps(1.0, Isotonic((0.0, 1.0), (0.3, 0.9))))
    assert np.isnan(confidence).tolist() == [True, True, False]


@given(
    n=st.integers(1, 3000),
    seed=st.integers(0, 2**32 - 1),
    digits=st.sampled_from([1, 3, 17]),
    power=st.sampled_from([0.001, 0.3, 1.0, 30.0]),
    right=st.sampled_from([0.0, 0.5, 1.0, None]),
)
@example(n=292, seed=36211302, digits=17, power=30.0, right=0.5)
def test_every_fitted_map_rises_strictly_between_0_and_1(
    n: int, seed: int, digits: int, power: float, right: float | None
) -> None:
    """What `contracts.manifest.check` asks of one, and what keeps the order of confidences."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(n) ** power, digits)
    isotonic = fit_isotonic(confidence, rng.random(n) < (confidence if right is None else right))
    scores, probabilities = np.array(isotonic.scores), np.array(isotonic.probabilities)
    assert 2 <= len(scores) == len(probabilities) <= MAX_KNOTS
    assert (scores[0], scores[-1]) == (0.0, 1.0)
    assert (np.diff(scores) > 0).all()
    assert (np.diff(probabilities) > 0).all()
    assert probabilities[0] >= 0.0
    assert probabilities[-1] <= 1.0


def test_a_map_comes_near_the_true_probability() -> None:
    """Sure 0.9 and right in 0.9 ** 4 of the cases: no temperature says so, the map does."""
    rng = np.random.default_rng(4)
    confidence = rng.uniform(0.2, 1.0, 20_000)
    isotonic = fit_isotonic(confidence, rng.random(20_000) < confidence**4)
    at = np.linspace(0.25, 0.98, 50)
    np.testing.assert_allclose(np.interp(at, isotonic.scores, isotonic.probabilities), at**4, atol=0.05)


def overconfident(n: int, seed: int) -> tuple[Floats, Numbers]:
    """Answers differ by chance in a third of the rows where the logits are surest: more heat does not mend that."""
    logits, answers = drawn(n, 1.0, seed)
    rng = np.random.default_rng(seed)
    sure = confidence_of(logits, Maps()) > 0.9
    lost = sure & (rng.random(n) < 1 / 3)
    return logits, np.where(lost, (logits.argmax(axis=1) + 1) % 10, answers)


def test_a_map_is_kept_where_it_predicts_better_and_only_there() -> None:
    bent = choose_maps(*overconfident(4000, seed=5))
    assert bent.way == "isotonic"
    assert bent.maps.isotonic is not None
    assert bent.held_out["isotonic"].brier < bent.held_out["temperature"].brier
    straight = choose_maps(*drawn(600, 1.0, seed=6))
    assert straight.way == "temperature"
    assert straight.maps == Maps(fit_temperature(*drawn(600, 1.0, seed=6)))
    assert straight.ways["isotonic"].isotonic is not None


def test_few_samples_fit_a_temperature_alone() -> None:
    chosen = choose_maps(*drawn(99, 1.0, seed=7))
    assert (chosen.way, list(chosen.ways), chosen.held_out) == ("temperature", ["temperature"], {})


def test_rows_that_are_no_numbers_fit_nothing() -> None:
    logits, answers = drawn(300, 1.0, seed=8)
    spoilt = np.concatenate([logits, np.full((20, 10), np.nan, np.float32), np.full((20, 10), np.inf, np.float32)])
    assert choose_maps(spoilt, np.concatenate([answers, np.zeros(40, np.int64)])) == choose_maps(logits, answers)
    with pytest.raises(CompileError, match="Give `fit` samples"):
        choose_maps(spoilt[300:], answers[:40])


def test_scores_of_a_detector_get_a_map_where_they_are_not_as_right_as_they_say() -> None:
    rng = np.random.default_rng(10)
    scores = rng.uniform(0.25, 1.0, 2000)
    honest = choose_score_maps(scores, rng.random(2000) < scores)
    assert honest.ways["score"] == Maps()
    assert honest.held_out[honest.way].brier <= honest.held_out["score"].brier
    bent = choose_score_maps(scores, rng.random(2000) < scores**4)
    assert (bent.way, bent.maps.temperature) == ("isotonic", 1.0)
    np.testing.assert_allclose(confidence_of_scores(np.array([0.5, 0.9]), bent.maps), [0.5**4, 0.9**4], atol=0.08)


def test_few_scores_are_taken_as_they_are_and_none_are_refused() -> None:
    few = choose_score_maps(np.linspace(0.3, 0.9, 99), np.arange(99) % 2 == 0)
    assert (few.way, few.ways, few.held_out) == ("score", {"score": Maps()}, {})
    assert confidence_of_scores(np.array([0.3, 1.5, -1.0]), few.maps).tolist() == [0.3, 1.0, 0.0]
    with pytest.raises(CompileError, match="Give pictures in which the detector finds something"):
        choose_score_maps(np.zeros(0), np.zeros(0, np.bool_))


def test_reliability_counts_every_number_once_and_measures_the_gap() -> None:
    """Sure of 0.8 always, right in 0.6 of the cases: off by 0.2, whatever the bins."""
    confidence = np.array([0.8] * 100 + [np.nan] * 3)
    agrees = np.array([True, True, True, False, False] * 20 + [True] * 3)
    told = reliability(confidence, agrees)
    assert told.ece == pytest.approx(0.2, abs=1e-9)
    assert sum(each.count for each in told.bins) == 100
    assert told.losses.brier == pytest.approx(0.6 * 0.04 + 0.4 * 0.64)
    assert told.losses.nll == pytest.approx(-0.6 * np.log(0.8) - 0.4 * np.log(0.2))


def test_the_right_temperature_is_reliable_and_another_is_not() -> None:
    logits, answers = drawn(20_000, 1.0, seed=9)
    agrees = logits.argmax(axis=1) == answers
    good, bad = (reliability(confidence_of(logits, Maps(heat)), agrees) for heat in (1.0, 0.4))
    assert good.ece < 0.015 < 0.05 < bad.ece
    assert good.losses.brier < bad.losses.brier
    assert good.losses.nll < bad.losses.nll
    assert all(each.low <= each.confidence <= each.high for each in good.bins)


def test_no_samples_have_no_losses() -> None:
    nothing = np.zeros(0), np.zeros(0, np.bool_)
    assert losses_of(*nothing).brier == 0.0
    assert reliability(*nothing).bins == ()
