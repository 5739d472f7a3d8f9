"""What is counted of a version's runs, and what says nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from contracts.errors import FoothillError
from contracts.quality import EDGES_MS, Counts
from runtime.serving.engines.engine import Interrupted
from runtime.serving.engines.tensors import Array
from runtime.serving.models.meter import Meter, Meters
from runtime.serving.models.postprocess import Readings

SOUND = {"x": np.zeros((1, 2), np.float32)}
NO_NUMBERS = {"x": np.array([[1.0, np.nan]], np.float32)}


class Clock:
    """Each look at it is so many seconds after the one before."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def giving(outputs: dict[str, Array]) -> Meter:
    meter = Meter()
    meter.running(lambda _: outputs)(SOUND)
    return meter


def failing(error: Exception) -> Meter:
    def run(_: Mapping[str, Array]) -> dict[str, Array]:
        raise error

    meter = Meter()
    with pytest.raises(type(error)):
        meter.running(run)(SOUND)
    return meter


def test_runs_are_counted_by_how_long_they_took() -> None:
    meter = Meter(Clock(0.0101))
    run = meter.running(lambda inputs: dict(inputs))
    assert [run(SOUND)["x"].shape for _ in range(3)] == [(1, 2)] * 3
    counts = meter.counts()
    assert (counts.runs, counts.failed, sum(counts.latency)) == (3, 0, 3)
    bucket = counts.latency.index(3)
    assert EDGES_MS[bucket - 1] < 10.1 <= EDGES_MS[bucket]


@pytest.mark.parametrize("step_s", [0.0, 1e6])
def test_the_fastest_and_the_slowest_have_buckets_too(step_s: float) -> None:
    meter = Meter(Clock(step_s))
    meter.running(lambda inputs: dict(inputs))(SOUND)
    assert meter.counts().latency[0 if step_s == 0 else -1] == 1


@pytest.mark.parametrize("error", [FoothillError("internal", "the runtime broke"), MemoryError()])
def test_a_run_that_breaks_has_failed(error: Exception) -> None:
    counts = failing(error).counts()
    assert (counts.runs, counts.failed, sum(counts.latency)) == (1, 1, 0)


@pytest.mark.parametrize("error", [FoothillError("bad_tensor", "an index too high"), Interrupted()])
def test_callers_fault_and_nobodys_says_nothing_of_a_version(error: Exception) -> None:
    assert not failing(error).counts().is_some


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_has_failed(value: float) -> None:
    outputs = {"ids": np.array([1]), "scores": np.array([[0.5, value]], np.float16)}
    assert (giving(outputs).counts().runs, giving(outputs).counts().failed) == (1, 1)


def test_nonsense_for_nonsense_says_nothing_of_a_version() -> None:
    meter = Meter()
    meter.running(lambda inputs: dict(inputs))(NO_NUMBERS)
    assert not meter.counts().is_some


def test_doubtful_answers_are_those_below_the_threshold() -> None:
    meter = Meter()
    read = meter.reading(lambda outputs, ends: Readings(ends, [0.2, None, 0.8, 0.79]), 0.8)
    assert read(SOUND, (1, 2, 3, 4)).confidences == [0.2, None, 0.8, 0.79]
    assert (meter.counts().judged, meter.counts().doubtful) == (3, 2)


def test_looks_at_the_machine() -> None:
    meter = Meter()
    for strained in (True, False, False):
        meter.looked(strained=strained)
    assert (meter.counts().looks, meter.counts().strained) == (3, 1)


def test_nothing_is_lost_between_threads() -> None:
    meter = Meter()
    run = meter.running(lambda inputs: dict(inputs))
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(run, [SOUND] * 2000):
            pass
    assert meter.counts().runs == sum(meter.counts().latency) == 2000


def test_a_version_that_comes_back_counts_on_and_the_oldest_is_forgotten() -> None:
    meters = Meters()
    meters.of("a").looked(strained=False)
    assert meters.counts() == {"a": Counts(looks=1, latency=(0,) * 45)}
    for number in range(63):
        meters.of(f"b{number}")
    meters.of("a").looked(strained=False)
    meters.of("c")
    counts = meters.counts()
    assert (len(counts), counts["a"].looks) == (64, 2)
    assert "b0" not in counts
