"""Running estimates: bounded by what was measured, and never stuck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.links.escalation.estimates import Fading, Shrunk

samples = st.lists(st.floats(0, 1e4), min_size=1, max_size=50)


@given(samples, st.floats(0, 100))
def test_a_fading_mean_stays_within_what_was_measured_and_fades_to_nothing(drawn: list[float], pause_s: float) -> None:
    mean = Fading(half_life_s=30.0)
    assert mean.value(0.0) == 0.0
    for number, sample in enumerate(drawn):
        mean.measure(sample, number * pause_s)
        assert -1e-9 <= mean.value(number * pause_s) <= max(drawn) + 1e-6
    end_s = len(drawn) * pause_s
    assert mean.value(end_s + 30) == pytest.approx(mean.value(end_s) / 2)
    assert mean.value(end_s + 30_000) < 1e-6


def test_a_newer_value_replaces_and_a_bound_only_raises() -> None:
    mean = Fading(half_life_s=10.0)
    mean.replace(8.0, 0.0)
    mean.at_least(4.0, 0.0)
    assert mean.value(0.0) == 8.0
    mean.at_least(20.0, 0.0)
    assert mean.value(10.0) == 10.0
    mean.replace(1.0, 10.0)
    assert mean.value(10.0) == 1.0


def test_a_clock_that_jumps_back_makes_nothing_grow() -> None:
    mean = Fading(half_life_s=10.0)
    mean.replace(8.0, 100.0)
    assert mean.value(50.0) == 8.0


@given(st.floats(0, 1000), samples)
def test_a_shrunk_mean_lies_between_the_prior_and_the_samples(prior: float, drawn: list[float]) -> None:
    mean = Shrunk(prior)
    assert mean.value() == pytest.approx(prior)
    for sample in drawn:
        mean.measure(sample)
    low, high = min(prior, *drawn), max(prior, *drawn)
    assert low - 1e-6 <= mean.value() <= high + 1e-6


def test_old_samples_give_way() -> None:
    mean = Shrunk(10.0, weight=5.0, memory=20)
    for _ in range(1000):
        mean.measure(100.0)
    for _ in range(100):
        mean.measure(20.0)
    assert 17 < mean.value() < 20
