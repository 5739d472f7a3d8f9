"""The median of timings and its interval."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.errors import CompileError
from model_compiler.reporting.spread import latency_of


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=300))
def test_the_interval_holds_the_median_and_ends_at_runs(times: list[float]) -> None:
    found = latency_of(times)
    assert found.median_ms == pytest.approx(statistics.median(times))
    assert found.low_ms <= found.median_ms <= found.high_ms
    assert {found.low_ms, found.high_ms} <= set(times)
    assert found.runs == len(times)


def test_it_covers_the_true_median_of_skewed_timings() -> None:
    rng = np.random.default_rng(2)
    found = [latency_of(list(np.exp(rng.normal(size=60)))) for _ in range(400)]
    assert 0.93 <= np.mean([each.low_ms <= 1.0 <= each.high_ms for each in found]) <= 0.99


def test_no_run_is_no_latency() -> None:
    with pytest.raises(CompileError, match="at least one run"):
        latency_of([])
