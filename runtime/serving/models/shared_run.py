"""One run of the engine for several requests: their rows put together, the outputs taken apart again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import msgspec
import numpy as np

from contracts.errors import FoothillError
from runtime.serving.engines.engine import Interrupted
from runtime.serving.engines.tensors import Array
from runtime.serving.models.postprocess import Readings, nothing

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Read = Callable[[Mapping[str, Array], Sequence[int]], Readings]
"""What the outputs of a run say to each request in it, given where the rows of each end; nowhere, for one alone."""

Clock = Callable[[], float]


class Whole(msgspec.Struct, frozen=True):
    """What one run has said to its requests. `ends`: where the rows of each end in the outputs; empty for one alone,
    which has all of them."""

    outputs: dict[str, Array]
    ends: Sequence[int]
    readings: Readings

    def part(self, at: int) -> dict[str, Array]:
        """The outputs of one request: views into those of the run."""
        if not self.ends:
            return self.outputs
        start, end = self.ends[at - 1] if at else 0, self.ends[at]
        return {name: array[start:end] for name, array in self.outputs.items()}


class Ran(msgspec.Struct, frozen=True):
    """What became of the requests: `together`, or, where that failed, of each alone. `engine_s` is without reading."""

    together: Whole | None
    apart: Sequence[Whole | Exception]
    started_s: float
    engine_s: float

    @property
    def sound(self) -> bool:
        return self.together is not None


def read_nothing(outputs: Mapping[str, Array], ends: Sequence[int]) -> Readings:
    """For outputs that say nothing."""
    return nothing(ends)


def run_shared(run: Run, read: Read, requests: Sequence[Mapping[str, Array]], clock: Clock) -> Ran:
    """Never raises: a failure is the result of those whom it is about.

    When a shared run fails, each request runs alone, so that one cannot fail the others.
    """
    started_s = clock()
    try:
        outputs, ends = _together(run, requests)
        engine_s = clock() - started_s
        return Ran(Whole(outputs, ends, read(outputs, ends)), (), started_s, engine_s)
    except Exception as error:  # noqa: BLE001 - whoever waits is told of defects too
        again = len(requests) > 1 and isinstance(error, FoothillError) and not isinstance(error, Interrupted)
        apart = [_alone(run, read, inputs) for inputs in requests] if again else [error] * len(requests)
        return Ran(None, apart, started_s, clock() - started_s)


def _together(run: Run, requests: Sequence[Mapping[str, Array]]) -> tuple[dict[str, Array], list[int]]:
    """The outputs of one run, and where the rows of each request end in them; who is alone has them all."""
    if len(requests) == 1:
        return run(requests[0]), []
    ends = [*accumulate([len(next(iter(inputs.values()))) for inputs in requests])]
    joined = {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}
    outputs = run(joined)
    _check_rows(outputs, ends[-1])
    return outputs, ends


def _alone(run: Run, read: Read, inputs: Mapping[str, Array]) -> Whole | Exception:
    try:
        outputs, ends = _together(run, [inputs])
        return Whole(outputs, ends, read(outputs, ends))
    except Exception as error:  # noqa: BLE001 - whoever waits is told of defects too
        return error


def _check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    for name, array in outputs.items():
        if len(array) != rows:
            raise FoothillError("internal", f"Output {name!r} has {len(array)} rows for {rows} rows of input.")
