"""A model's first runs: everything it needs is made ready, and what a run of each size takes is measured."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

from contracts.errors import FoothillError
from runtime.serving.batching.service_times import PAYS
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)

BUDGET_S = 1.0
_RUNS = 5
_NO_GAIN = 2
"""After so many larger sizes without gain, larger ones are not measured."""


def warm_up(model: LoadedModel, *, budget_s: float = BUDGET_S, clock: Callable[[], float] = time.perf_counter) -> None:
    """Runs the first golden row in growing batches, for about `budget_s`; blocks. The first size is always measured.

    A size that fails here is left out and told in the log: requests will be run without it.
    """
    row = first_row(model)
    began_s, best_s, idle = clock(), float("inf"), 0
    for size in model.times.sizes:
        inputs = {name: np.repeat(array, size, axis=0) for name, array in row.items()} if model.batches else row
        left_s = budget_s - (clock() - began_s)
        if idle >= _NO_GAIN or (size > 1 and 2 * best_s * size > left_s):
            return
        try:
            seconds = _measure(model, inputs, left_s, clock)
        except FoothillError as error:
            log.warning("%s: no run of %d rows in its warm-up: %s", model.manifest.reference, size, error.message)
            return
        model.times.measured(size, seconds)
        idle = 0 if seconds / size <= PAYS * best_s else idle + 1
        best_s = min(best_s, seconds / size)


def _measure(model: LoadedModel, inputs: Mapping[str, Array], left_s: float, clock: Callable[[], float]) -> float:
    """The median of a few runs, after one that does not count."""
    until_s = clock() + left_s / 2
    model.run(inputs)
    taken_s: list[float] = []
    while not taken_s or (len(taken_s) < _RUNS and clock() < until_s):
        started_s = clock()
        model.run(inputs)
        taken_s.append(clock() - started_s)
    return statistics.median(taken_s)


def first_row(model: LoadedModel) -> dict[str, Array]:
    """The golden inputs, or their first row where the model takes batches."""
    inputs = {name: np.load(model.directory / path) for name, path in model.manifest.golden.inputs.items()}
    return {name: array[:1] for name, array in inputs.items()} if model.batches else inputs
