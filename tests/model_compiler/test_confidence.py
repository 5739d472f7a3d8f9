"""Temperature and rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.risk import threshold
from model_compiler.confidence import Promise, confidence_of, fit_rule, fit_temperature
from model_compiler.data.samples import Floats

DIGEST = "sha256:" + "0" * 64


def drawn(n: int, heat: float, seed: int) -> tuple[Floats, np.ndarray]:
    """Logits, and answers drawn from softmax(logits / heat): `heat` is the right temperature."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((n, 10))).astype(np.float32)
    gumbel = rng.gumbel(size=logits.shape)
    return logits, (logits / heat + gumbel).argmax(axis=1)


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
    confidence = confidence_of(logits * 100, temperature)
    assert ((confidence >= 0.1 - 1e-12) & (confidence <= 1.0)).all()


def test_the_rule_is_the_threshold_fit_at_the_fitted_temperature() -> None:
    fit_logits, fit_answers = drawn(400, 1.0, seed=4)
    logits, answers = drawn(800, 1.0, seed=5)
    promise = Promise(epsilon=0.1, delta=0.05)
    rule = fit_rule(fit_logits, fit_answers, logits, answers, promise, stratum="s", cloud_digest=DIGEST)
    expected = threshold.fit(
        confidence_of(logits, rule.temperature), logits.argmax(axis=1) != answers, epsilon=0.1, delta=0.05
    )
    assert rule.temperature == fit_temperature(fit_logits, fit_answers)
    assert (rule.threshold, rule.n, rule.feasible) == (expected.threshold, 800, True)
    assert (rule.epsilon, rule.delta, rule.stratum, rule.cloud_digest) == (0.1, 0.05, "s", DIGEST)


def test_a_promise_that_cannot_be_kept_escalates_everything() -> None:
    logits, answers = drawn(40, 1.0, seed=6)
    rule = fit_rule(logits, answers, logits, answers, Promise(), stratum="s", cloud_digest=DIGEST)
    assert not rule.feasible
    assert rule.threshold > 1.0
