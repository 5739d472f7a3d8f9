"""The rule of an artifact: its maps, its threshold, its budget, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.risk import threshold
from model_compiler.calibration import Maps, choose_maps, confidence_of, confidence_of_scores
from model_compiler.confidence import FittedRule, Promise, Scored, fit_rule, fit_score_rule
from model_compiler.data.samples import Floats, Numbers
from tests.model_compiler.drawn import drawn

DIGEST = "sha256:" + "0" * 64


def fitted(promise: Promise, *, n: int = 2000, fit_seed: int = 4, seed: int = 5) -> FittedRule:
    fit, certify = drawn(1000, 1.0, fit_seed), drawn(n, 1.0, seed)
    return fit_rule(*fit, *certify, promise, stratum="s", cloud_digest=DIGEST)


def test_the_rule_is_the_threshold_fit_under_the_fitted_maps() -> None:
    fit, (logits, answers) = drawn(1000, 1.0, seed=4), drawn(2000, 1.0, seed=5)
    told = fitted(Promise(epsilon=0.1, delta=0.05))
    maps = choose_maps(*fit).maps
    differs = logits.argmax(axis=1) != answers
    expected = threshold.fit(confidence_of(logits, maps), differs, epsilon=0.1, delta=0.05)
    rule = told.rule
    assert (rule.temperature, rule.isotonic) == (maps.temperature, maps.isotonic)
    assert (rule.threshold, rule.n, rule.feasible) == (expected.threshold, 2000, True)
    assert (rule.epsilon, rule.delta, rule.stratum, rule.cloud_digest) == (0.1, 0.05, "s", DIGEST)
    kept = confidence_of(logits, rule) >= rule.threshold
    certified = told.certification
    assert certified.kept_wrong == np.count_nonzero(kept & differs)
    assert certified.escalation == pytest.approx(1 - kept.mean())
    assert certified.disagreement == pytest.approx(differs.mean())
    assert "At most 0.1 of all requests" in certified.message


def spoilt(n: int, seed: int) -> tuple[Floats, Numbers]:
    """The surest rows are wrong by chance in a third of the cases, which a map tells and a temperature cannot."""
    logits, answers = drawn(n, 1.0, seed)
    lost = (confidence_of(logits, Maps()) > 0.97) & (np.random.default_rng(seed).random(n) < 1 / 3)
    return logits, np.where(lost, (logits.argmax(axis=1) + 1) % 10, answers)


def test_a_chosen_map_is_in_the_rule_and_the_threshold_on_its_scale() -> None:
    told = fit_rule(*spoilt(4000, 1), *spoilt(4000, 2), Promise(epsilon=0.1), stratum="s", cloud_digest=DIGEST)
    assert told.rule.isotonic == told.chosen.maps.isotonic
    assert told.rule.isotonic is not None
    logits, answers = spoilt(4000, 2)
    kept = confidence_of(logits, told.rule) >= told.rule.threshold
    assert np.count_nonzero(kept & (logits.argmax(axis=1) != answers)) == told.certification.kept_wrong
    assert list(told.reliability) == ["none", "temperature", "isotonic"]
    assert told.reliability["isotonic"].ece < told.reliability["temperature"].ece


def test_a_promise_that_cannot_be_kept_escalates_everything_and_says_what_can() -> None:
    told = fitted(Promise(epsilon=0.001), n=400)
    assert not told.rule.feasible
    assert told.rule.threshold > 1.0
    certified = told.certification
    assert (certified.feasible, certified.escalation) == (False, 1.0)
    assert 0.001 < certified.smallest_epsilon < 0.02
    assert "INFEASIBLE: 400 samples do not certify a joint risk of 0.001 at confidence 0.95." in certified.message
    assert f"{certified.smallest_epsilon:.4g}" in certified.message


def test_a_budget_of_escalations_that_would_break_is_infeasible_with_the_smallest_risk_within_it() -> None:
    free = fitted(Promise(epsilon=0.05))
    assert free.rule.feasible
    needed = free.certification.escalation
    assert 0.1 < needed < 0.9
    enough = fitted(Promise(epsilon=0.05, max_escalation=needed + 0.1))
    assert enough.rule == free.rule
    tight = Promise(epsilon=0.05, max_escalation=needed / 2)
    refused = fitted(tight)
    assert not refused.rule.feasible
    assert refused.rule.threshold > 1.0
    assert "escalating" in refused.certification.message
    least = refused.certification.smallest_epsilon
    assert 0.05 < least < free.certification.disagreement
    allowed = fitted(Promise(epsilon=least * 1.001, max_escalation=needed / 2))
    assert allowed.rule.feasible
    # The budget is settled on the other samples; these tell the same share but for chance.
    assert allowed.certification.escalation == pytest.approx(needed / 2, abs=0.04)
    assert not fitted(Promise(epsilon=least * 0.999, max_escalation=needed / 2)).rule.feasible


def scored(n: int, seed: int) -> Scored:
    """As right as the square of what the scores say."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.25, 1.0, n)
    return Scored(scores, rng.random(n) < scores**2)


def test_scores_of_a_detector_are_certified_as_logits_are() -> None:
    told = fit_score_rule(scored(1500, 1), scored(2000, 2), Promise(epsilon=0.1), stratum="s", cloud_digest=DIGEST)
    rule, seen = told.rule, scored(2000, 2)
    assert (rule.temperature, rule.isotonic, rule.feasible, rule.n) == (1.0, told.chosen.maps.isotonic, True, 2000)
    kept = confidence_of_scores(seen.scores, rule) >= rule.threshold
    assert told.certification.kept_wrong == np.count_nonzero(kept & ~seen.agrees)
    assert told.certification.kept_wrong / 2000 <= 0.1
    assert told.certification.disagreement == pytest.approx(1 - seen.agrees.mean())
    assert list(told.reliability) == ["none", "score", "isotonic"]
    assert told.reliability["none"] == told.reliability["score"]
    strict = fit_score_rule(scored(1500, 1), scored(50, 2), Promise(epsilon=0.03), stratum="s", cloud_digest=DIGEST)
    assert not strict.rule.feasible
    assert "INFEASIBLE: 50 samples do not certify a joint risk of 0.03" in strict.certification.message


def test_no_threshold_samples_certify_nothing() -> None:
    told = fitted(Promise(), n=0)
    assert not told.rule.feasible
    assert (told.certification.smallest_epsilon, told.certification.n) == (1.0, 0)


def test_answers_that_are_no_numbers_are_never_kept() -> None:
    fit, (logits, answers) = drawn(1000, 1.0, seed=4), drawn(1000, 1.0, seed=5)
    logits[:900] = np.nan
    told = fit_rule(*fit, logits, answers, Promise(epsilon=0.2), stratum="s", cloud_digest=DIGEST)
    assert told.rule.feasible
    assert told.certification.escalation >= 0.9
    assert told.certification.kept_wrong <= 100


@pytest.mark.parametrize(
    "changes", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"delta": 1.0}, {"max_escalation": 1.1}]
)
def test_a_promise_beyond_reason_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="A promise needs"):
        Promise(**changes)
