"""What files take, in turns: a machine that drifts then drifts under all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from model_compiler.data.samples import Floats
from model_compiler.replay import Ends, open_engine

_WARM_UP = 5

Name = TypeVar("Name", bound=Hashable)


def medians_ms(
    artifacts: Mapping[Name, Path],
    inputs: Floats,
    ends: Ends,
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, float]:
    """Median milliseconds of one run per artifact, on one thread, a row at a time (or as many as the model insists on).

    In every round each artifact runs once, forwards and backwards by turns, on the same input.
    """
    rows = ends.batch or 1
    with ExitStack() as opened:
        engines = {name: opened.enter_context(closing(open_engine(path))) for name, path in artifacts.items()}
        taken: dict[Name, list[float]] = {name: [] for name in engines}
        for turn in range(_WARM_UP + rounds):
            feed = {ends.input: np.take(inputs, range(turn * rows, (turn + 1) * rows), axis=0, mode="wrap")}
            for name in engines if turn % 2 else reversed(engines):
                start = clock()
                engines[name].run(feed)
                taken[name].append((clock() - start) * 1e3)
    return {name: statistics.median(times[_WARM_UP:]) for name, times in taken.items()}
