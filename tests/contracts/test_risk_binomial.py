"""Binomial tails and bounds, against SciPy and against their own definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.risk import binomial

scipy_stats = pytest.importorskip("scipy.stats")

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
chances = st.floats(1e-6, 1 - 1e-6)
levels = st.floats(1e-4, 0.5)


@given(counts, chances)
def test_cdf_is_scipys(count: tuple[int, int], p: float) -> None:
    k, n = count
    assert binomial.cdf(k, n, p) == pytest.approx(float(scipy_stats.binom.cdf(k, n, p)), rel=1e-8, abs=1e-200)


@pytest.mark.parametrize(("k", "p"), [(20_000, 0.02), (19_500, 0.02), (20_500, 0.02), (500_000, 0.5), (10, 1e-5)])
def test_cdf_stays_exact_for_a_million_trials(k: int, p: float) -> None:
    assert binomial.cdf(k, 1_000_000, p) == pytest.approx(float(scipy_stats.binom.cdf(k, 1_000_000, p)), rel=1e-8)


@pytest.mark.parametrize(
    ("k", "n", "p", "expected"),
    [(-1, 5, 0.3, 0.0), (5, 5, 0.3, 1.0), (2, 5, 0.0, 1.0), (2, 5, 1.0, 0.0), (0, 0, 0.5, 1.0), (0, 10, 0.5, 0.5**10)],
)
def test_cdf_at_the_ends(k: int, n: int, p: float, expected: float) -> None:
    assert binomial.cdf(k, n, p) == pytest.approx(expected)


@given(counts, levels)
def test_upper_bound_is_where_the_tail_reaches_delta(count: tuple[int, int], delta: float) -> None:
    k, n = count
    bound = binomial.upper_bound(k, n, delta)
    if k == n:
        assert bound == 1.0
    else:
        assert bound >= k / n
        assert binomial.cdf(k, n, bound) == pytest.approx(delta, rel=1e-6)


@given(counts, levels)
def test_bounds_mirror_each_other(count: tuple[int, int], delta: float) -> None:
    k, n = count
    assert binomial.lower_bound(k, n, delta) == pytest.approx(1 - binomial.upper_bound(n - k, n, delta), abs=1e-9)


def test_no_trials_bound_nothing() -> None:
    assert binomial.upper_bound(0, 0, 0.05) == 1.0
    assert binomial.lower_bound(0, 0, 0.05) == 0.0


def test_no_failure_in_n_is_the_rule_of_three() -> None:
    assert binomial.upper_bound(0, 300, 0.05) == pytest.approx(3 / 300, rel=0.01)


@given(st.integers(0, 3000), chances, levels)
def test_the_critical_count_is_the_last_that_rejects(n: int, p: float, delta: float) -> None:
    critical = binomial.critical_count(n, p, delta)
    assert -1 <= critical < max(n, 1)
    assert critical == -1 or binomial.cdf(critical, n, p) <= delta
    assert binomial.cdf(critical + 1, n, p) > delta
