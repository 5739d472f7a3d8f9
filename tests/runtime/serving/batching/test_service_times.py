"""The curve of service times: what it believes after a warm-up, noise, drift and nothing at all."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.serving.batching.service_times import ServiceTimes, sizes_up_to

RUNS = st.lists(st.tuples(st.integers(1, 40), st.floats(1e-6, 10), st.floats(0, 10)), max_size=40)


def test_sizes_are_powers_of_two_and_the_largest() -> None:
    assert [sizes_up_to(rows) for rows in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


@given(st.integers(1, 32), RUNS)
def test_more_rows_never_take_less_time_whatever_was_seen(max_rows: int, runs: list[tuple[int, float, float]]) -> None:
    times = ServiceTimes(max_rows)
    for rows, engine_s, overhead_s in runs:
        times.observe(min(rows, max_rows), engine_s, engine_s + overhead_s)
    curve = [times.engine_s(rows) for rows in range(1, max_rows + 5)]
    assert curve == pytest.approx(sorted(curve))
    assert all(times.run_s(rows) <= times.sure_s(rows) for rows in range(1, max_rows + 1))
    paces = [times.pace_s(rows) for rows in range(1, max_rows + 5)]
    assert paces == sorted(paces, reverse=True)
    assert times.known == bool(runs)


def test_nothing_is_refused_before_anything_is_known() -> None:
    times = ServiceTimes(8)
    assert (times.known, times.run_s(8), times.sure_s(1), times.pace_s(4)) == (False, 0.0, 0.0, 0.0)


def test_a_size_nobody_measured_costs_as_much_a_row_as_the_largest_that_is() -> None:
    times = ServiceTimes(8)
    times.measured(1, 0.010)
    times.measured(2, 0.012)
    assert times.engine_s(8) == pytest.approx(0.048)
    assert times.engine_s(3) == pytest.approx(0.018)
    assert (times.best(8), times.best(1)) == (2, 1)


@pytest.mark.parametrize("spread", [0.05, 0.4])
def test_noise_and_pauses_leave_the_curve_where_it_is(spread: float) -> None:
    rng = random.Random(1)
    times = ServiceTimes(16)
    for _ in range(2000):
        rows = rng.randint(1, 16)
        engine_s = (0.004 + 0.001 * rows) * rng.lognormvariate(0, spread) * (50 if rng.random() < 0.01 else 1)
        times.observe(rows, engine_s, engine_s)
    for rows in (1, 5, 16):
        assert times.engine_s(rows) == pytest.approx(0.004 + 0.001 * rows, rel=0.25)


def test_a_machine_that_slows_down_is_followed_at_every_size() -> None:
    times = ServiceTimes(4)
    for size in times.sizes:
        times.measured(size, 0.01 * size)
    for _ in range(60):
        times.observe(1, 0.03, 0.03)
    assert times.engine_s(1) == pytest.approx(0.03, rel=0.05)
    assert times.engine_s(4) > 0.045


def test_one_pause_moves_hardly_anything() -> None:
    times = ServiceTimes(1)
    times.measured(1, 0.01)
    times.observe(1, 10.0, 10.0)
    assert times.engine_s(1) < 0.013


def test_nineteen_of_twenty_runs_end_within_the_sure_time() -> None:
    rng = random.Random(2)
    times = ServiceTimes(1)
    times.measured(1, 0.01)
    within = 0
    for count in range(4000):
        whole_s = 0.01 * rng.lognormvariate(0, 0.2) + 0.002
        within += count >= 1000 and whole_s <= times.sure_s(1)
        times.observe(1, whole_s - 0.002, whole_s)
    assert 0.93 < within / 3000 < 0.97


def test_a_larger_size_is_due_when_unknown_and_again_after_long() -> None:
    times = ServiceTimes(2)
    times.measured(1, 0.010)
    assert times.due(2, 0.010)
    times.measured(2, 0.021)
    assert not times.due(2, 0.010)
    for _ in range(300):
        times.observe(1, 0.010, 0.010)
    assert times.due(2, times.run_s(1))
    times.observe(2, 0.021, 0.021)
    assert not times.due(2, times.run_s(1))


def test_a_size_that_never_pays_is_tried_ever_more_rarely() -> None:
    times = ServiceTimes(2)
    times.measured(1, 0.010)
    times.measured(2, 0.021)
    tries = []
    for run in range(20_000):
        rows = 2 if times.due(2, times.run_s(1)) else 1
        seconds = 0.021 if rows == 2 else 0.010
        times.observe(rows, seconds, seconds)
        tries += [run] if rows == 2 else []
    gaps = [after - before for before, after in pairwise(tries)]
    assert 4 <= len(tries) <= 7
    assert all(later >= 1.9 * sooner for sooner, later in pairwise(gaps))
