"""The replays' own arithmetic, on a population made up here, and one run through."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from benchmarks import confidence_replays as replays
from benchmarks.report import table
from contracts.risk import threshold
from model_compiler.confidence import Promise
from tests.model_compiler.drawn import drawn

even = np.linspace(0.0, 1.0, 4000)
"""Confidences; those below 0.1 differ."""


def test_the_oracle_escalates_just_what_the_truth_asks() -> None:
    differs = even < 0.1
    assert replays.oracle_escalation(even, differs, 0.03) == pytest.approx(0.07, abs=0.001)
    assert replays.oracle_escalation(even, differs, 0.1) == 0.0
    assert replays.oracle_escalation(np.ones(100), np.arange(100) < 4, 0.03) == 1.0


def test_the_least_escalation_is_what_the_threshold_nearly_reaches() -> None:
    """Simulated: 400 fits average within 1.5 % above it, never clearly below."""
    rng, differs, promise, n = np.random.default_rng(1), even < 0.1, Promise(), 2000
    escalated = []
    for _ in range(400):
        rows = rng.integers(0, len(even), n)
        fitted = threshold.fit(even[rows], differs[rows], epsilon=promise.epsilon, delta=promise.delta)
        escalated.append(float(np.mean(even < fitted.threshold)))
    least = replays.least_escalation(even, differs, promise, n)
    assert replays.oracle_escalation(even, differs, promise.epsilon) < least
    assert 0.995 * least < np.mean(escalated) < 1.015 * least


def test_more_samples_come_nearer_to_the_oracle_until_there_are_enough() -> None:
    differs, promise = even < 0.1, Promise()
    few, many = (replays.least_escalation(even, differs, promise, n) for n in (500, 5000))
    assert few > many
    needed = replays.samples_needed(even, differs, promise)
    assert needed is not None
    wanted = replays.TARGET * replays.oracle_escalation(even, differs, promise.epsilon)
    assert replays.least_escalation(even, differs, promise, needed) <= wanted
    assert replays.least_escalation(even, differs, promise, int(0.9 * needed)) > wanted
    assert replays.samples_needed(even, differs, Promise(epsilon=0.09999)) is None


def test_replays_run_through_and_report() -> None:
    logits, answers = drawn(6000, 1.0, seed=3)
    cloud = np.eye(10, dtype=np.float32)[answers]
    population = replays.logits_population("made up", "drawn from a softmax", logits, cloud)
    assert (len(population.whole), len(population.fit)) == (4800, 1200)
    promises = [Promise(epsilon=0.1), Promise(epsilon=0.9)]
    results = replays.measure(population, promises, n=1000, n_fit=300, replays=12, seed=1)
    strict, loose = results.replayed
    assert strict.differs == pytest.approx(population.whole.differs.mean())
    assert (strict.replays, strict.infeasible) == (12, 0)
    assert strict.broken_low <= strict.broken <= strict.broken_high
    assert strict.holds
    assert strict.ratio_mean is not None
    assert strict.ratio_low is not None
    assert strict.ratio_high is not None
    assert 1.0 < strict.ratio_low < strict.ratio_mean < strict.ratio_high < 2.0
    assert strict.oracle < strict.escalation < 1.0
    assert (loose.broken, loose.escalation, loose.ratio_mean, loose.n_needed) == (0.0, 0.0, None, None)
    calibrated = results.calibrated[0]
    assert 0.0 <= calibrated.isotonic_chosen <= 1.0
    for row in [*results.replayed, *results.calibrated]:
        assert not any(isinstance(value, float) and math.isnan(value) for value in msgspec.structs.astuple(row))
    assert table(results.replayed).count("\n") == 3


def test_the_same_seed_draws_the_same_replays() -> None:
    logits, answers = drawn(2000, 1.0, seed=4)
    population = replays.logits_population("made up", "", logits, np.eye(10, dtype=np.float32)[answers])
    first, again = (
        replays.measure(population, [Promise(epsilon=0.1)], n=500, n_fit=200, replays=3, seed=5) for _ in range(2)
    )
    assert first == again
