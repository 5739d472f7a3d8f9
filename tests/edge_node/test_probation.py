from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from edge_node.probation import Health, Rule, WatchedEngine, judge, watch
from runtime.serving.engines.engine import Interrupted
from runtime.serving.engines.tensors import Array

RULE = Rule(seconds=5.0, requests=100)


@pytest.mark.parametrize(
    ("elapsed_s", "health", "verdict"),
    [
        (0.0, Health(), "wait"),
        (4.9, Health(runs=99), "wait"),
        (5.0, Health(), "confirm"),
        (0.1, Health(runs=100), "confirm"),
        (0.1, Health(runs=1, errors=1), "revert"),
        (9.0, Health(runs=500, errors=1), "revert"),
    ],
)
def test_probation_ends_by_time_by_requests_or_by_an_error(elapsed_s: float, health: Health, verdict: str) -> None:
    assert judge(elapsed_s, health, RULE) == verdict


@given(st.floats(0, 1e6), st.integers(0, 10**6), st.integers(1, 100))
def test_an_engine_error_always_reverts(elapsed_s: float, runs: int, errors: int) -> None:
    assert judge(elapsed_s, Health(runs, errors), RULE) == "revert"


async def test_probation_is_watched_until_it_ends_and_tells_how_the_engine_stood_then() -> None:
    looks = iter([Health(runs=1), Health(runs=99), Health(runs=100)])
    assert await watch(lambda: next(looks), RULE, lambda: 0.0) == Health(runs=100)
    seconds = iter([0.0, 4.9, 5.0])
    assert await watch(Health, RULE, lambda: next(seconds)) == Health()


class Moody:
    """An engine that fails on inputs named `bad`, cannot take those named `nonsense`, and is told to give up `late`."""

    provider = "CPUExecutionProvider"
    concurrent = True

    def __init__(self) -> None:
        self.closed = False
        self.interrupted = 0

    def interrupt(self, thread: int) -> None:
        self.interrupted += thread

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if "bad" in inputs:
            raise FoothillError("internal", "The engine refused these inputs.")
        if "late" in inputs:
            raise Interrupted
        if "nonsense" in inputs:
            raise FoothillError("bad_tensor", "The model refuses these values.")
        return dict(inputs)

    def close(self) -> None:
        self.closed = True


def test_a_watched_engine_counts_and_passes_everything_on() -> None:
    moody = Moody()
    engine = WatchedEngine(moody)
    array = np.zeros(1, np.float32)
    assert engine.run({"good": array}) == {"good": array}
    with pytest.raises(FoothillError):
        engine.run({"bad": array})
    engine.run({"good": array})
    assert engine.health == Health(3, 1, "The engine refused these inputs.")
    assert engine.provider == moody.provider
    engine.close()
    assert moody.closed


def test_values_that_are_their_callers_fault_say_nothing_of_the_engine() -> None:
    engine = WatchedEngine(Moody())
    for _ in range(RULE.requests):
        with pytest.raises(FoothillError, match="refuses these values"):
            engine.run({"nonsense": np.zeros(1, np.float32)})
    assert engine.health == Health()
    assert judge(0.1, engine.health, RULE) == "wait"


def test_a_run_that_is_given_up_says_nothing_of_the_engine() -> None:
    moody = Moody()
    engine = WatchedEngine(moody)
    engine.interrupt(1)
    assert moody.interrupted == 1
    with pytest.raises(Interrupted):
        engine.run({"late": np.zeros(1, np.float32)})
    assert engine.health == Health()
