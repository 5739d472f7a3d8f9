from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.acceptance import CHECKS
from hil.boards import Limits
from hil.checks.soak import Taken, judge
from hil.exposition import Vitals, vitals_of
from hil.growth import LEAST_SAMPLES, Growth, exceeds, growth
from hil.latencies import Latencies
from hil.plan import Plan

MB = 1_000_000.0


@given(st.floats(1e6, 1e12), st.floats(-1000, 1e7), st.integers(LEAST_SAMPLES, 200))
def test_steady_growth_is_seen_and_its_warm_up_is_not(start: float, step: float, count: int) -> None:
    values = [start + step * at for at in range(count)]
    found = growth(values)
    assert found is not None
    assert (found.absolute > 0) == (step > 0) or abs(step) < 1e-3
    warmed = growth([value / 3 if at < count // 3 else start for at, value in enumerate(values)])
    assert warmed is not None
    assert warmed.absolute == 0


def test_a_single_peak_is_no_growth() -> None:
    assert growth([100.0] * 20 + [500.0] + [100.0] * 9) == Growth(100.0, 100.0)


def test_too_few_looks_say_nothing() -> None:
    assert growth([1.0] * (LEAST_SAMPLES - 1)) is None


def test_both_the_share_and_the_allowance_must_be_passed() -> None:
    grown = Growth(100 * MB, 103 * MB)
    assert exceeds(grown, percent=2.0, allowance=1 * MB)
    assert not exceeds(grown, percent=4.0, allowance=1 * MB)
    assert not exceeds(grown, percent=2.0, allowance=4 * MB)


def test_every_fault_of_a_soak_is_told_with_its_limit() -> None:
    steady, limits = Growth(10.0, 10.0), Limits()
    assert judge(Taken(Growth(100 * MB, 101 * MB), steady, steady), limits, looks=30) == []
    faults = judge(Taken(Growth(100 * MB, 150 * MB), Growth(20, 60), Growth(9, 20)), limits, looks=30)
    assert [fault.partition(" grew")[0] for fault in faults] == ["memory", "open files", "threads"]
    assert "8 are allowed" in faults[1]
    assert "too few" in judge(Taken(None, None, None), limits, looks=2)[0]
    assert "does not tell" in judge(Taken(None, None, None), limits, looks=30)[0]


def test_a_process_is_read_from_its_metrics() -> None:
    text = b"# HELP x\nprocess_resident_memory_bytes 1.5e+08\nprocess_open_fds 12.0\nfoothill_threads 7.0 1700000000\n"
    assert vitals_of(text) == Vitals(1.5e8, 12.0, 7.0)


@given(st.binary(max_size=400))
def test_garbage_in_place_of_metrics_says_nothing(text: bytes) -> None:
    assert vitals_of(b"process_resident_memory_bytes nan\nprocess_open_fds -1\n" + text + b"\n").open_files in (None,)


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=200), st.sampled_from([1.0, 50.0, 95.0, 99.0, 100.0]))
def test_quantiles_are_exact_to_a_percent(values: list[float], percent: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    ordered = sorted(max(value, 0.001) for value in values)
    wanted = next(value for at, value in enumerate(ordered) if at + 1 >= len(ordered) * percent / 100.0)
    assert latencies.quantile(percent) <= max(wanted * 1.011, 0.00102)
    assert latencies.quantile(percent) >= min(wanted * 0.989, 2e7)


def test_no_request_has_no_latency() -> None:
    assert Latencies().quantile(99) == 0.0


@given(st.integers(1, 256))
def test_the_sweep_doubles_up_to_the_most(most: int) -> None:
    levels = Plan(most_concurrency=most).levels()
    assert levels[0] == 1
    assert levels[-1] == most
    assert list(levels) == sorted(set(levels))


def test_every_check_has_a_name_of_its_own() -> None:
    assert len(set(CHECKS)) == len(CHECKS) == 13
