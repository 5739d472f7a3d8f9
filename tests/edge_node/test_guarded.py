from __future__ import annotations

from collections.abc import Mapping

import pytest

from contracts.errors import FoothillError
from edge_node.guarded import GuardedEngine
from runtime.serving.engines.engine import Interrupted, Interruptible
from runtime.serving.engines.tensors import Array


class Failing:
    provider = "tensorrt 10.3.0"
    concurrent = False

    def __init__(self, code: str) -> None:
        self.code = code
        self.closed = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise FoothillError(self.code, "it broke")

    def close(self) -> None:
        self.closed = True


def runs(engine: GuardedEngine, times: int) -> None:
    for _ in range(times):
        with pytest.raises(FoothillError, match="it broke"):
            engine.run({})


def test_the_first_failure_is_told_once() -> None:
    told: list[str] = []
    inner = Failing("internal")
    engine = GuardedEngine(inner, told.append)
    runs(engine, 3)
    assert (told, engine.provider) == (["it broke"], "tensorrt 10.3.0")
    engine.close()
    assert inner.closed


def test_what_the_caller_did_wrong_is_not_told() -> None:
    told: list[str] = []
    runs(GuardedEngine(Failing("bad_tensor"), told.append), 2)
    assert told == []


class Stuck(Failing):
    """Gives its run up when it is told to."""

    def __init__(self) -> None:
        super().__init__("unavailable")
        self.given_up = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise Interrupted

    def interrupt(self, thread: int) -> None:
        self.given_up = True


def test_a_run_that_is_given_up_is_passed_on_and_no_failure() -> None:
    told: list[str] = []
    inner = Stuck()
    engine = GuardedEngine(inner, told.append)
    assert isinstance(engine, Interruptible)
    engine.interrupt(1)
    with pytest.raises(Interrupted):
        engine.run({})
    assert (inner.given_up, told) == (True, [])
    GuardedEngine(Failing("internal"), told.append).interrupt(1)
