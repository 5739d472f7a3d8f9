"""An engine that does what a test says: it waits for its word, or sleeps, and remembers what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.serving.engines.engine import Interrupted
from runtime.serving.models.loaded import LoadedModel

Array = npt.NDArray[Any]


class Scripted:
    """Runs the model `lookup` of four classes: `index` [n, 1] in, `logits` [n, 4] out.

    `gated` waits for `let` before each run ends, `seconds` is how long a row takes.
    """

    provider = "scripted"
    concurrent = False

    def __init__(self, *, gated: bool = False, seconds: float = 0.0) -> None:
        self.seen: list[list[int]] = []
        self.interrupts = 0
        self._gated = gated
        self._seconds = seconds
        self._allowed = threading.Semaphore(0)
        self._given_up = threading.Event()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        index = inputs["index"].ravel()
        self.seen.append(index.tolist())
        self._given_up.clear()
        if self._gated:
            self._allowed.acquire(timeout=20)
        time.sleep(self._seconds * len(index))
        if self._given_up.is_set():
            raise Interrupted
        return {"logits": np.eye(4, dtype=np.float32)[index]}

    def interrupt(self, thread: int) -> None:
        self.interrupts += 1
        self._given_up.set()
        self._allowed.release()

    def let(self, runs: int = 1) -> None:
        self._allowed.release(runs)

    def close(self) -> None:
        pass


def scripted(loaded: LoadedModel, engine: Scripted, *, seconds: float) -> LoadedModel:
    """`loaded` with `engine`, of which is known that a row takes `seconds` and batching gains nothing."""
    loaded.close()
    loaded.engine = engine
    for size in loaded.times.sizes:
        loaded.times.measured(size, seconds * size)
    return loaded
