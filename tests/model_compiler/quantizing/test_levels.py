"""Scales and integers: zero is exact, nothing is further off than half a step, 16-bit sums hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from model_compiler.data.samples import Floats
from model_compiler.quantizing.levels import fit_bias, symmetric, to_int8, to_int32, unsigned, weight_levels
from model_compiler.quantizing.ranges import Range

ranges = st.builds(Range, st.floats(-1e4, 0, width=32), st.floats(0, 1e4, width=32))
values = st.floats(-10, 10, width=32)
unhurried = settings(deadline=None)
kernels = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=6), elements=values)


@unhurried
@given(ranges, st.booleans())
def test_zero_is_a_level_and_the_ends_are_near_one(ends: Range, rectified: bool) -> None:
    levels = unsigned(ends, rectified=rectified)
    scale, zero = float(levels.scale), int(levels.zero_point)
    assert scale > 0
    assert 0 <= zero <= 255
    if ends.high - ends.low > 1e-6:
        assert abs(-zero * scale - ends.low) <= scale * (2 if rectified else 0.51)
        assert abs((255 - zero) * scale - ends.high) <= scale * (2 if rectified else 0.51)


@unhurried
@given(ranges)
def test_no_level_of_a_rectified_tensor_lies_beyond_its_limits(ends: Range) -> None:
    """Else ONNX Runtime would keep the Clip, and with it compute the whole convolution in float."""
    levels = unsigned(ends, rectified=True)
    lowest, highest = (np.float32(step - int(levels.zero_point)) * levels.scale for step in (0, 255))
    if ends.high - ends.low > 1e-6:
        assert lowest >= ends.low
        assert highest <= ends.high


@unhurried
@given(ranges)
def test_symmetric_levels_reach_the_farther_end(ends: Range) -> None:
    levels = symmetric(ends)
    assert levels.zero_point == 0
    assert levels.zero_point.dtype == np.int8
    largest = max(-ends.low, ends.high)
    if largest > 1e-6:
        assert float(levels.scale) * 127 == pytest.approx(largest, rel=1e-6)


@unhurried
@given(kernels, st.booleans())
def test_weights_are_off_by_half_a_step_at_most(weight: Floats, pairs_fit: bool) -> None:
    levels = weight_levels(weight, 0, pairs_fit=pairs_fit)
    scale = levels.scale.reshape(-1, *[1] * (weight.ndim - 1))
    error = np.abs(to_int8(weight, 0, levels) * scale - weight)
    assert (error <= scale * 0.5001).all()


@unhurried
@given(kernels)
def test_neighbours_never_overflow_16_bits_in_either_order(weight: Floats) -> None:
    """255 * (a + b) must stay within -32768..32767 for the two products that x86 adds first."""
    integers = to_int8(weight, 0, weight_levels(weight, 0, pairs_fit=True)).astype(int)
    for rows in (integers.reshape(len(integers), -1), np.moveaxis(integers, 1, -1).reshape(len(integers), -1)):
        assert (np.abs(rows[:, 1:] + rows[:, :-1]) <= 128).all()


@unhurried
@given(kernels)
def test_fitting_pairs_costs_one_bit_at_most(weight: Floats) -> None:
    free = weight_levels(weight, 0, pairs_fit=False).scale
    fitting = weight_levels(weight, 0, pairs_fit=True).scale
    assert (fitting >= free).all()
    assert (fitting <= free * 2.001).all()


def test_a_channel_alone_with_one_large_weight_uses_all_8_bits() -> None:
    weight = np.array([[1.0, 0.01, -1.0, 0.01]], np.float32)
    integers = to_int8(weight, 0, weight_levels(weight, 0, pairs_fit=True))
    assert integers.tolist() == [[127, 1, -127, 1]]


@unhurried
@given(
    arrays(np.float32, 5, elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (5, 3), elements=st.sampled_from([0.0, 1e-8, 0.25, -3.0])),
    st.floats(2**-20, 10, width=32),
)
def test_biases_fit_32_bits_and_keep_their_value(bias: Floats, weight: Floats, scale: float) -> None:
    """Also that of a channel without weights, which a scale of 1 would round to whole steps of the input."""
    input_scale = np.asarray(scale, np.float32)
    levels = fit_bias(weight_levels(weight, 0, pairs_fit=False), input_scale, bias, weight, 0)
    steps = (input_scale * levels.scale).astype(np.float32)
    stored: npt.NDArray[np.float64] = to_int32(bias, steps).astype(np.float64) * steps
    assert np.abs(stored - bias).max() <= max(steps.max() * 0.51, 1e-4)
    assert (np.abs(stored - bias)[~weight.any(axis=1)] < 1e-4).all()
