"""Golden inputs and outputs: what a node replays before it trusts a loaded artifact."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError

ROWS = 16
MAX_BYTES = 4 << 20
"""Of golden inputs: a bundle of large pictures would otherwise be mostly golden rows."""
_LEAST_ROWS = 4


class Tolerance(msgspec.Struct, frozen=True):
    """An output passes within `atol + rtol * |expected|`."""

    atol: float
    rtol: float


def tolerance_for(outputs: Mapping[str, Floats], *, quantized: bool) -> Tolerance:
    """A share of the widest output, absolute, and the same share relative.

    fp32: 0.5 %, since GPUs multiply with TF32's 10 bits of mantissa by default. int8: 2 %, since one step of a uint8
    activation is 1/255 of its range and kernels of another CPU may round a few of them the other way.
    """
    share = 0.02 if quantized else 0.005
    widest = max(float(np.abs(values).max()) for values in outputs.values())
    return Tolerance(float(f"{share * widest:.3g}"), share)


def rows_for(row_bytes: int) -> int:
    """How many golden rows of so many bytes: ROWS, fewer where rows are large."""
    return max(_LEAST_ROWS, min(ROWS, MAX_BYTES // max(row_bytes, 1)))


def choose_rows(
    outputs: Mapping[str, Floats], labels: npt.NDArray[np.int64], tolerance: Tolerance, count: int = ROWS
) -> npt.NDArray[np.int64]:
    """Up to `count` row numbers on which every artifact gives the label beyond the tolerance, in turns through labels.

    `labels`: (n,), such as the float form's answers. Then the top label must agree in every row, on every machine that
    computes within the tolerance. Raises CompileError where hardly any row is so sure.
    """
    sure = np.logical_and.reduce([_sure(values, labels, tolerance) for values in outputs.values()])
    by_label = [np.flatnonzero(sure & (labels == label)) for label in np.unique(labels)]
    deepest = max((len(rows) for rows in by_label), default=0)
    turns = [rows[turn] for turn in range(deepest) for rows in by_label if turn < len(rows)]
    if len(turns) < min(count, _LEAST_ROWS):
        raise CompileError(
            f"Every artifact gives the same label with room to spare in only {len(turns)} of {len(labels)} samples; "
            f"{min(count, _LEAST_ROWS)} golden rows are needed. Train longer, keep more precision (fp16), or give more "
            "`fit` samples."
        )
    return np.sort(np.asarray(turns[:count], np.int64))


def _sure(values: Floats, labels: npt.NDArray[np.int64], tolerance: Tolerance) -> npt.NDArray[np.bool_]:
    ordered = np.sort(values, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    room = 2 * (tolerance.atol + tolerance.rtol * np.abs(ordered[:, -1]))
    return np.asarray((values.argmax(axis=1) == labels) & (margin > room))
