"""The first moments of a new bundle in service: when it has proved itself, and when it is taken back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from contracts.errors import FoothillError
from runtime.serving.engines.engine import Engine, Interrupted, Interruptible
from runtime.serving.engines.tensors import Array

Verdict = Literal["wait", "confirm", "revert"]

_WATCH_EVERY_S = 0.05


class Rule(msgspec.Struct, frozen=True):
    """Probation ends after `seconds`, or earlier after `requests` runs of the engine, all without an engine error."""

    seconds: float = 5.0
    requests: int = 100


class Health(msgspec.Struct, frozen=True):
    """What an engine has done so far, but for runs of values it cannot take. `error` is the first failure's message."""

    runs: int = 0
    errors: int = 0
    error: str = ""


def judge(elapsed_s: float, health: Health, rule: Rule) -> Verdict:
    if health.errors > 0:
        return "revert"
    if elapsed_s >= rule.seconds or health.runs >= rule.requests:
        return "confirm"
    return "wait"


async def watch(health: Callable[[], Health], rule: Rule, clock: Callable[[], float]) -> Health:
    """Waits for the end of probation; how the engine stood then. `clock` is monotonic, in seconds."""
    started_s, now = clock(), health()
    while judge(clock() - started_s, now, rule) == "wait":
        await asyncio.sleep(_WATCH_EVERY_S)
        now = health()
    return now


class WatchedEngine:
    """An engine whose runs and failures are counted, on from `health`. The count is read from any thread."""

    def __init__(self, engine: Engine, health: Health | None = None) -> None:
        self._engine = engine
        self._health = health or Health()
        self._lock = threading.Lock()

    @property
    def provider(self) -> str:
        return self._engine.provider

    @property
    def concurrent(self) -> bool:
        return self._engine.concurrent

    @property
    def health(self) -> Health:
        return self._health

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            outputs = self._engine.run(inputs)
        except Interrupted:
            # Nobody waited for it any more: that says nothing of the engine.
            raise
        except FoothillError as error:
            # Values that the model cannot take are their caller's fault: they speak neither for the engine nor against
            # it, else anyone could take a good bundle back, or see a bad one through, by sending nonsense.
            if error.code != "bad_tensor":
                self._count(error.message)
            raise
        self._count("")
        return outputs

    def interrupt(self, thread: int) -> None:
        if isinstance(self._engine, Interruptible):
            self._engine.interrupt(thread)

    def close(self) -> None:
        self._engine.close()

    def _count(self, error: str) -> None:
        with self._lock:
            health = self._health
            self._health = Health(health.runs + 1, health.errors + bool(error), health.error or error)
