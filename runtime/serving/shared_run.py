"""One run of the engine for several requests: their rows put together, the outputs taken apart again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from contracts.errors import FoothillError
from runtime.serving.engine import Interrupted
from runtime.serving.tensors import Array

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Clock = Callable[[], float]


class Ran(msgspec.Struct, frozen=True):
    """What became of each request, in their order: its outputs (views into the batch's), or what was raised."""

    results: Sequence[dict[str, Array] | Exception]
    started_s: float
    engine_s: float


def run_shared(run: Run, requests: Sequence[Mapping[str, Array]], clock: Clock) -> Ran:
    """Never raises: a failure is the result of those whom it is about.

    When a shared run fails, each request runs alone, so that one cannot fail the others.
    """
    started_s = clock()
    results: Sequence[dict[str, Array] | Exception]
    try:
        results = _together(run, requests)
    except Exception as error:  # noqa: BLE001 - whoever waits is told of defects too
        again = len(requests) > 1 and isinstance(error, FoothillError) and not isinstance(error, Interrupted)
        results = [_alone(run, inputs) for inputs in requests] if again else [error] * len(requests)
    return Ran(results, started_s, clock() - started_s)


def _together(run: Run, requests: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    if len(requests) == 1:
        return [run(requests[0])]
    joined = {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}
    outputs = run(joined)
    ends = np.cumsum([len(next(iter(inputs.values()))) for inputs in requests]).tolist()
    _check_rows(outputs, ends[-1])
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in outputs.items()} for start, end in zip(starts, ends, strict=True)
    ]


def _alone(run: Run, inputs: Mapping[str, Array]) -> dict[str, Array] | Exception:
    try:
        return run(inputs)
    except FoothillError as error:
        return error


def _check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    for name, array in outputs.items():
        if len(array) != rows:
            raise FoothillError("internal", f"Output {name!r} has {len(array)} rows for {rows} rows of input.")
