"""The sequential test holds its error rates at every stopping time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.risk.sequential import Sprt

RATES = st.tuples(st.floats(0.01, 0.6), st.floats(0.03, 0.35)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def verdict(test: Sprt, rate: float, rng: random.Random, longest: int = 3000) -> str:
    k = 0
    for n in range(1, longest + 1):
        k += rng.random() < rate
        decision = test.decide(n, k)
        if decision != "continue":
            return decision
    return "continue"


@settings(max_examples=15, deadline=None)
@given(RATES, st.sampled_from([0.01, 0.05, 0.1]), st.sampled_from([0.05, 0.2]), st.integers(0, 2**32))
def test_false_stops_stay_below_alpha_and_misses_below_beta(
    rates: tuple[float, float], alpha: float, beta: float, seed: int
) -> None:
    test, rng, runs = Sprt(rates[0], rates[1], alpha, beta), random.Random(seed), 400
    stopped = sum(verdict(test, test.p0, rng) == "reject" for _ in range(runs))
    passed = sum(verdict(test, test.p1, rng) == "accept" for _ in range(runs))
    # Four standard errors above the promise: a right test fails here once in 30,000 cases.
    assert stopped <= runs * alpha + 4 * (runs * alpha * (1 - alpha)) ** 0.5
    assert passed <= runs * beta + 4 * (runs * beta * (1 - beta)) ** 0.5


@settings(max_examples=50, deadline=None)
@given(RATES, st.integers(0, 2**32))
def test_a_clear_case_is_decided_soon(rates: tuple[float, float], seed: int) -> None:
    test, rng = Sprt(rates[0], rates[1], 0.01, 0.05), random.Random(seed)
    assert verdict(test, min(0.999, rates[1] + 0.2), rng) != "continue"
    assert verdict(test, 0.0, rng) == "accept"


@given(RATES, st.integers(1, 500), st.integers(0, 500))
def test_more_events_never_speak_for_the_lower_rate(rates: tuple[float, float], n: int, k: int) -> None:
    test = Sprt(rates[0], rates[1], 0.01, 0.05)
    k = min(k, n - 1)
    assert test.log_ratio(n, k + 1) > test.log_ratio(n, k)
    assert test.log_ratio(n + 1, k) < test.log_ratio(n, k)


def test_no_evidence_decides_nothing() -> None:
    assert Sprt(0.1, 0.2, 0.01, 0.05).decide(0, 0) == "continue"


@pytest.mark.parametrize(
    "values", [(0.0, 0.1, 0.1, 0.1), (0.2, 0.1, 0.1, 0.1), (0.1, 1.0, 0.1, 0.1), (0.1, 0.2, 0, 0.1)]
)
def test_rates_that_no_test_can_tell_apart_are_refused(values: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="p0 < p1"):
        Sprt(*values)
