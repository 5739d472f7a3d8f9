"""The paired bootstrap: reproducible, as wide as it should be, and narrower because it pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_compiler.bootstrap import paired_difference
from model_compiler.errors import CompileError

rights = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(rights, st.integers(0, 2**32))
def test_the_same_rows_and_seed_give_the_same_interval_around_the_difference(
    rows: list[tuple[bool, bool]], seed: int
) -> None:
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    found = paired_difference(a, b, seed, resamples=300)
    assert found == paired_difference(a, b, seed, resamples=300)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert -1 <= found.low <= found.high <= 1
    turned = paired_difference(b, a, seed, resamples=300)
    assert turned.mean == pytest.approx(-found.mean)


def test_the_interval_is_pinned() -> None:
    a, b = np.arange(1000) % 10 > 0, np.arange(1000) % 9 > 0
    found = paired_difference(a, b, 7)
    assert (found.mean, found.low, found.high) == pytest.approx((0.012, -0.015, 0.039), abs=0.0011)


@pytest.mark.parametrize(("n", "points"), [(12, 22.1), (100, 2.95), (1026, 0.292)])
def test_rows_that_never_differ_leave_the_doubt_of_their_number(n: int, points: float) -> None:
    """Three in n, and not nothing: a thirteenth row may differ."""
    right = np.ones(n)
    found = paired_difference(right, right, 0)
    assert found == paired_difference(right, right, 1)
    assert (found.mean, 100 * found.low, 100 * found.high) == pytest.approx((0.0, -points, points), rel=0.005)


def test_rows_that_differ_alike_leave_doubt_on_the_side_where_there_is_room() -> None:
    found = paired_difference(np.ones(100), np.zeros(100), 0)
    assert found.mean == 1.0
    assert found.high == pytest.approx(1.0)
    assert found.low == pytest.approx(1 - 2 * 0.0295, abs=1e-3)


def test_the_doubt_is_in_the_unit_of_the_scores() -> None:
    right = np.full(100, 100.0)
    assert paired_difference(right, right, 0, largest=100.0).high == pytest.approx(2.95, rel=0.005)


@pytest.mark.parametrize("scale", [1.0, 0.9], ids=["right and wrong", "shares of many values"])
def test_it_covers_the_true_difference_about_as_often_as_it_says(scale: float) -> None:
    """Both ways of drawing: of three distinct differences, and of as many as there are rows."""
    rng, covered = np.random.default_rng(3), 0
    for seed in range(200):
        a, b = rng.random(300) < 0.90, rng.random(300) < 0.87
        jitter = 0.0 if scale == 1.0 else rng.random(300) * 1e-3
        found = paired_difference(a + jitter, b.astype(float), seed, resamples=400)
        covered += found.low <= 0.03 + np.mean(jitter) <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_pairing_cancels_what_makes_a_row_hard_for_both() -> None:
    rng = np.random.default_rng(5)
    hard = rng.random(2_000) < 0.3
    a, b = ~hard, ~hard & (rng.random(2_000) < 0.99)
    paired = paired_difference(a, b, 0)
    apart = paired_difference(a, rng.permutation(b), 0)
    assert (paired.high - paired.low) < (apart.high - apart.low) / 3


def test_a_difference_of_shares_agrees_with_the_normal_law() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.random(500), rng.random(500)
    found = paired_difference(a, b, 0, resamples=4_000)
    half = 1.96 * float((a - b).std()) / math.sqrt(500)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([]), np.array([])),
        (np.array([1.0]), np.array([1.0, 0.0])),
        (np.ones((2, 2)), np.ones((2, 2))),
        (np.array([1.0, np.nan]), np.array([1.0, 0.0])),
    ],
    ids=["none", "of other lengths", "tables", "not a number"],
)
def test_what_does_not_pair_is_refused(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(CompileError):
        paired_difference(a, b, 0)
