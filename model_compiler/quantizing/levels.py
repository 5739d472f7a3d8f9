"""From ranges and weights to scales, zero points and integers: the arithmetic of uniform quantization, pure numpy.

real = scale * (integer - zero point), rounded half to even, as QuantizeLinear and DequantizeLinear compute it.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats
from model_compiler.quantizing.ranges import Range

Integers = npt.NDArray[Any]

_MAX = 127
_PAIR = 128
_DEAD = 1e-15
"""A range below it holds nothing but zero: products of two scales must stay normal float32 numbers."""


class Levels(msgspec.Struct, frozen=True):
    """`scale`: () or (channels,) float32, above 0; `zero_point`: as many integers, of the type that is stored."""

    scale: Floats
    zero_point: Integers


def unsigned(ends: Range, *, rectified: bool = False) -> Levels:
    """All 256 levels of uint8 from `ends.low` to `ends.high`; zero is one of them.

    `rectified`: the tensor is what a ReLU or Clip wrote. No level then lies outside its limits, so that ONNX Runtime
    sees that rounding does what the function did, and computes it no more.
    """
    width = float(ends.high) - float(ends.low)
    if width < _DEAD:
        return Levels(np.asarray(1, np.float32), np.asarray(0, np.uint8))
    exact = -ends.low / width * 255
    if not rectified:
        return Levels(np.asarray(width / 255, np.float32), np.asarray(round(exact), np.uint8))
    scale, zero = max(_inside(ends, place) for place in {math.floor(exact), math.ceil(exact)})
    scale32 = np.float32(scale)
    if float(scale32) > scale:
        scale32 = np.nextafter(scale32, np.float32(0))
    return Levels(np.asarray(scale32), np.asarray(zero, np.uint8))


def _inside(ends: Range, zero: int) -> tuple[float, int]:
    """The largest scale with which no level lies outside `ends` when zero is at that integer, and the integer."""
    limits = ((ends.high, 255 - zero), (-ends.low, zero))
    return min(reach / steps for reach, steps in limits if steps), zero


def symmetric(ends: Range) -> Levels:
    """Levels -127 to 127 of int8, zero at 0."""
    largest = max(-float(ends.low), float(ends.high))
    return Levels(np.asarray(largest / _MAX if largest >= _DEAD else 1.0, np.float32), np.zeros((), np.int8))


def weight_levels(weight: Floats, axis: int, *, pairs_fit: bool) -> Levels:
    """A symmetric int8 scale for each channel along `axis`, the smallest that clips nothing.

    `pairs_fit`: neighbours in a sum together stay within ±128. x86 without VNNI adds two products of uint8 and int8 in
    16 bits and saturates beyond (255 * 129 > 32767). Kernels take a channel's weights in the order in which they are
    stored, or with the input channels innermost; neighbours of both orders fit.
    """
    rows = np.moveaxis(weight, axis, 0)
    scale = _live(np.abs(rows).reshape(len(rows), -1).max(axis=1, initial=0.0) / _MAX)
    if pairs_fit:
        pair = _largest_pair(rows)
        tight = np.maximum(scale, pair / np.float32(_PAIR))
        steps = np.rint(rows / tight.reshape(-1, *[1] * (rows.ndim - 1)))
        over = _largest_pair(steps) > _PAIR  # both were rounded up
        scale = np.where(over, np.maximum(scale, pair / np.float32(_PAIR - 1)), tight)
    return Levels(scale, np.zeros(len(scale), np.int8))


def fit_bias(levels: Levels, input_scale: Floats, bias: Floats, weight: Floats, axis: int) -> Levels:
    """Weight levels with which every bias (channels,) fits int32 at scale input * weight.

    A channel of zero weights gets the scale that its bias is best stored with: at 1 the bias would be rounded to whole
    steps of the input.
    """
    need = np.abs(bias.astype(np.float64)) / (float(input_scale) * 2.0**30)
    others = tuple(each for each in range(weight.ndim) if each != axis % weight.ndim)
    dead = ~weight.any(axis=others)
    own = np.where(dead, np.where(bias != 0, need * 64, 1.0), levels.scale.astype(np.float64))
    return Levels(np.maximum(np.maximum(own, need), _DEAD).astype(np.float32), levels.zero_point)


def to_int8(weight: Floats, axis: int, levels: Levels) -> npt.NDArray[np.int8]:
    """Each channel along `axis` in whole steps of its scale."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = np.rint(weight / levels.scale.reshape(shape))
    return np.asarray(np.clip(steps, -_MAX, _MAX), np.int8)


def to_int32(bias: npt.NDArray[np.floating[Any]], scale: Floats) -> npt.NDArray[np.int32]:
    """`bias` (channels,) in whole steps of `scale` (channels,)."""
    steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, -(2.0**31) + 1, 2.0**31 - 1).astype(np.int32)


def _live(scale: Floats) -> Floats:
    return np.where(scale >= _DEAD, scale, 1.0).astype(np.float32)


def _largest_pair(rows: Floats) -> Floats:
    """For each of (channels, ...) the largest magnitude of the sum of two neighbours, in either order."""
    orders = (rows.reshape(len(rows), -1), np.moveaxis(rows, 1, -1).reshape(len(rows), -1))
    sums = [np.abs(each[:, 1:] + each[:, :-1]).max(axis=1, initial=0.0) for each in orders]
    return np.asarray(np.maximum(*sums), np.float32)
