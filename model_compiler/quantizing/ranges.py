"""From what was observed to the range that a quantizer spreads its levels over; one table serves every target."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.errors import CompileError
from model_compiler.quantizing.observe import BINS, Observations, Seen

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)

PERCENTILE = 99.99
_LEVELS = 128
_RARE = 1e-12
"""The share of Q where P has something and Q nothing."""

Doubles = npt.NDArray[np.float64]


class Range(msgspec.Struct, frozen=True):
    """Real values from `low` <= 0 to `high` >= 0: zero is always a level, since padding and ReLU write it."""

    low: float
    high: float


class Table(msgspec.Struct, frozen=True):
    """The calibration: the range of every float activation of the prepared model, over `rows` samples."""

    method: Method
    ranges: dict[str, Range]
    rows: int


def table_of(observations: Observations, method: Method) -> Table:
    """The ranges of all observed tensors by `method`."""
    choose = {"minmax": minmax, "entropy": entropy, "percentile": percentile}[method]
    return Table(method, {name: choose(seen) for name, seen in observations.tensors.items()}, observations.rows)


def encode(table: Table) -> bytes:
    """JSON; the same table has the same bytes."""
    return msgspec.json.encode(table, order="sorted")


def decode(data: bytes) -> Table:
    """Raises CompileError for what `encode` did not write."""
    try:
        return msgspec.json.decode(data, type=Table)
    except msgspec.MsgspecError as error:
        raise CompileError(f"This is no calibration table: {error}. Calibrate again.") from error


def minmax(seen: Seen) -> Range:
    """All that was seen."""
    return Range(min(seen.low, 0.0), max(seen.high, 0.0))


def percentile(seen: Seen, share: float = PERCENTILE) -> Range:
    """All but the outer 100 - `share` percent of values at either end."""
    total = seen.histogram.sum()
    cut = total * (1 - share / 100)
    edges = np.linspace(-seen.largest, seen.largest, BINS + 1)
    below = np.cumsum(seen.histogram)
    first = int(np.searchsorted(below, cut, side="right"))
    last = int(np.searchsorted(below, total - cut, side="left"))
    return _within(seen, float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1]))


def entropy(seen: Seen) -> Range:
    """The symmetric cut whose quantized distribution is nearest to the observed one, by KL divergence.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: magnitudes in bins, `_LEVELS` levels, values beyond the cut
    counted into the last bin of the reference distribution.
    """
    half = BINS // 2
    magnitudes = (seen.histogram[half:] + seen.histogram[half - 1 :: -1]).astype(np.float64)
    magnitudes[0] = magnitudes[1]  # zero is exact at any cut: the zeros of ReLU must not outweigh what it let through
    cuts = np.arange(_LEVELS, half + 1, 4)
    best = cuts[::-1][int(np.argmin(_divergences(magnitudes, cuts)[::-1]))]  # the widest of equals
    limit = seen.largest * float(best) / half
    return _within(seen, -limit, limit)


def _within(seen: Seen, low: float, high: float) -> Range:
    """Never wider than what was seen, and never without zero."""
    widest = minmax(seen)
    return Range(min(max(low, widest.low), 0.0), max(min(high, widest.high), 0.0))


def _divergences(counts: Doubles, cuts: npt.NDArray[np.int64]) -> Doubles:
    """KL(P || Q) in nats for each of `cuts`: P the bins below the cut with the rest counted into the last one, Q the
    same bins at `_LEVELS` levels, each level spread evenly over those of its bins that hold anything.

    With h a bin's count and S, M a level's count and bins, sum p log(p / q) is
    (sum h log h - sum S log(S / M)) / T + log(inside / T), but for the last bin.
    """
    total, last = counts.sum(), counts[cuts - 1]
    if not total:
        return np.zeros(len(cuts))
    below, filled, own = (np.concatenate([[0.0], np.cumsum(each)]) for each in (counts, counts > 0, _x_log_x(counts)))
    edges = -(-np.arange(_LEVELS + 1) * cuts[:, None] // _LEVELS)
    sums, members = np.diff(below[edges], axis=1), np.diff(filled[edges], axis=1)
    level = np.log(np.maximum(sums, _RARE) / np.maximum(members, 1))
    outside, inside = total - below[cuts], below[cuts]
    spread = np.where(last > 0, level[:, -1], np.log(_RARE) + np.log(np.maximum(inside, _RARE)))
    in_last = _x_log_x(last + outside) - _x_log_x(last) - outside * spread
    return np.asarray(
        (own[cuts] - (sums * level).sum(axis=1) + in_last) / total + np.log(np.maximum(inside, _RARE) / total)
    )


def _x_log_x(values: Doubles) -> Doubles:
    return values * np.log(np.maximum(values, _RARE))
