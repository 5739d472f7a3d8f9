"""What artifacts really do: accuracy and agreement over counted samples, latency side by side."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from model_compiler.replay import open_session
from model_compiler.samples import Floats

_ROUNDS = 150
_WARM_UP = 20

HOW_LATENCY = (
    f"latency: median of {_ROUNDS} runs at batch 1, one thread, ONNX Runtime {onnxruntime.__version__}, "
    "artifacts and teacher taking turns"
)


def share_equal(answers: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> float:
    return float((answers == others).mean())


def latencies_ms(
    artifacts: Mapping[str, Path], inputs: Floats, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median milliseconds of one run at batch 1 per artifact.

    The artifacts take turns on the same input, so that a machine that drifts slows all of them.
    """
    sessions = {name: open_session(path) for name, path in artifacts.items()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(_WARM_UP + _ROUNDS):
        row = np.ascontiguousarray(inputs[turn % len(inputs)][None])
        for name, session in sessions.items():
            feed = {session.get_inputs()[0].name: row}
            start = clock()
            session.run(None, feed)
            taken[name].append((clock() - start) * 1e3)
    return {name: round(statistics.median(times[_WARM_UP:]), 4) for name, times in taken.items()}


def machine() -> str:
    """Enough to tell two measurements apart, nothing that identifies the host."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
