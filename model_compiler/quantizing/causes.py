"""Why a tensor quantizes badly: named causes by rules over what was observed. Pure."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.quantizing.observe import BINS, Seen
from model_compiler.quantizing.ranges import Range
from model_compiler.quantizing.sqnr import decibels

Cause = Literal["outlier channel", "saturating range", "dead zero point", "missing QDQ", "calibration shift"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

ADVICE: dict[Cause, str] = {
    "outlier channel": "Equalize the layers around it; where a gate or swish forbids that, keep the layer in float.",
    "saturating range": "Calibrate by min-max, or by percentile instead of entropy: values beyond the range are cut.",
    "dead zero point": "Calibrate again without the rare value that stretched the range: most values round to zero.",
    "missing QDQ": "It runs in float between two conversions: quantize what is around it too, or leave that float.",
    "calibration shift": "Calibrate on samples like those that the model will see: the range does not fit them.",
}


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a cause begins.

    `outlier`: the widest channel over the median one; at 16 a median channel has 4 of 8 bits left.
    `clipped`: noise of clipping over noise of rounding; `clipped_db`: only where the tensor is worse than this.
    `dead`: the share of channels (of values, where there are no channels) that carry something and all round to zero.
    `wide`, `narrow`: the range over what other samples fill; a range cut on purpose is not narrow by calibration.
    """

    outlier: float = 16.0
    clipped: float = 4.0
    clipped_db: float = 25.0
    dead: float = 0.25
    wide: float = 4.0
    narrow: float = 0.6


THRESHOLDS = Thresholds()


class Evidence(msgspec.Struct, frozen=True):
    """What is known of one quantized activation.

    `range`: what the quantizer spreads its `levels` over; `calibrated`: the tensor on the calibration samples; `now`:
    on other samples, those that the model is judged by.
    """

    range: Range
    calibrated: Seen
    now: Seen
    levels: int = 255

    @property
    def step(self) -> float:
        return (self.range.high - self.range.low) / self.levels


def causes_of(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> tuple[Cause, ...]:
    """The causes whose rule holds, the most specific first; none where the tensor simply needs more bits."""
    rules: tuple[tuple[Cause, bool], ...] = (
        ("outlier channel", outlier(evidence.now) >= thresholds.outlier),
        ("calibration shift", _shifted(evidence, thresholds)),
        ("saturating range", _saturates(evidence, thresholds)),
        ("dead zero point", dead_share(evidence) >= thresholds.dead),
    )
    return tuple(cause for cause, holds in rules if holds)


def weight_causes(weight: npt.NDArray[np.floating], thresholds: Thresholds = THRESHOLDS) -> tuple[Cause, ...]:
    """For `weight` (out, in, ...) with one scale per output channel: one input channel may outweigh the others."""
    if weight.ndim < 2 or weight.shape[1] < 2:
        return ()
    by_input = np.abs(weight.reshape(*weight.shape[:2], -1)).max(axis=2)
    widths = by_input.max(axis=0)
    return ("outlier channel",) if _widest_over_median(widths) >= thresholds.outlier else ()


def advice_for(causes: tuple[Cause, ...]) -> str:
    """One sentence of what to do, for the first cause."""
    return ADVICE[causes[0]] if causes else "Its values need more than 8 bits: keep it in fp16, or train with int8."


def outlier(seen: Seen) -> float:
    """The widest channel over the median of those that carry anything; 1 for a tensor without channels."""
    return 1.0 if seen.channel_low is None else _widest_over_median(_widths(seen))


def clipping(evidence: Evidence) -> tuple[float, float]:
    """(energy of clipping over energy of rounding, SQNR of both together in dB), from the histogram of `now`.

    Rounding to steps of s has a variance of s^2 / 12 (Widrow 1956).
    """
    values, counts = _centres(evidence.now), evidence.now.histogram.astype(np.float64)
    cut = values - np.clip(values, evidence.range.low, evidence.range.high)
    # A bin half inside the range is no clipping.
    cut = np.sign(cut) * np.maximum(np.abs(cut) - evidence.now.largest / BINS, 0.0)
    clipped = float((counts * np.square(cut)).sum())
    rounded = float(counts.sum()) * evidence.step**2 / 12
    signal = float((counts * np.square(values)).sum())
    return (clipped / rounded if rounded > 0 else float(clipped > 0)), decibels(signal, clipped + rounded)


def dead_share(evidence: Evidence) -> float:
    """The share of channels, or else of values, that carry something and all round to the level of zero."""
    half = evidence.step / 2
    if evidence.now.channel_low is not None:
        widths = _widths(evidence.now)
        alive = widths[widths > 0]
        return float((alive < half).mean()) if len(alive) else 0.0
    # The two bins at zero hold real zeros as well as small values: they say nothing.
    counts = evidence.now.histogram.astype(np.float64)
    counts[BINS // 2 - 1 : BINS // 2 + 1] = 0
    small = np.abs(_centres(evidence.now)) < half
    return float(counts[small].sum() / counts.sum()) if counts.sum() else 0.0


def _shifted(evidence: Evidence, thresholds: Thresholds) -> bool:
    """The range is far wider than other samples fill, or calibration saw far less than they hold."""
    filled = _span(evidence.now)
    if filled <= 0.0:
        return False
    too_wide = (evidence.range.high - evidence.range.low) / filled >= thresholds.wide
    return too_wide or _span(evidence.calibrated) / filled <= thresholds.narrow


def _saturates(evidence: Evidence, thresholds: Thresholds) -> bool:
    share, remaining_db = clipping(evidence)
    return share >= thresholds.clipped and remaining_db < thresholds.clipped_db


def _span(seen: Seen) -> float:
    return max(seen.high, 0.0) - min(seen.low, 0.0)


def _widths(seen: Seen) -> npt.NDArray[np.float32]:
    assert seen.channel_low is not None
    assert seen.channel_high is not None
    return np.asarray(np.maximum(np.abs(seen.channel_low), np.abs(seen.channel_high)))


def _widest_over_median(widths: npt.NDArray[np.floating]) -> float:
    alive = widths[widths > 0]
    return float(alive.max() / np.median(alive)) if len(alive) else 1.0


def _centres(seen: Seen) -> npt.NDArray[np.float64]:
    return np.asarray((np.arange(BINS) + 0.5) * (2 * seen.largest / BINS) - seen.largest)
