"""Named causes: each rule fires on its own fault and stays silent on a tensor that quantizes well."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.data.samples import Floats
from model_compiler.quantizing.causes import (
    ADVICE,
    CAUSES,
    THRESHOLDS,
    Cause,
    Evidence,
    advice_for,
    causes_of,
    clipping,
    weight_causes,
)
from model_compiler.quantizing.observe import BINS, Seen
from model_compiler.quantizing.ranges import Range, minmax
from tests.model_compiler.quantizing.chains import normal


def seen(values: Floats) -> Seen:
    """`values`: (n, channels)."""
    largest = float(np.abs(values).max())
    histogram = np.histogram(values, BINS, (-largest, largest))[0].astype(np.int64)
    return Seen(float(values.min()), float(values.max()), histogram, values.min(axis=0), values.max(axis=0))


def evidence(values: Floats, *, low: float = 1.0, high: float = 1.0, calibrated: Floats | None = None) -> Evidence:
    """Min-max of the calibration, its ends times `low` and `high`."""
    before = seen(values if calibrated is None else calibrated)
    ends = minmax(before)
    return Evidence(Range(ends.low * low, ends.high * high), before, seen(values))


def well() -> Floats:
    return np.maximum(normal(4000, 12, seed=0), -0.2)


def test_a_tensor_that_quantizes_well_has_no_cause() -> None:
    assert causes_of(evidence(well())) == ()


@given(st.floats(1e-6, 1e6))
def test_the_unit_of_the_values_does_not_matter(unit: float) -> None:
    values = well()
    values[:, 3] *= 60
    assert causes_of(evidence(values * np.float32(unit))) == causes_of(evidence(values))


@given(st.integers(0, 11), st.floats(30, 1000))
def test_one_channel_far_wider_than_the_others_is_an_outlier(channel: int, times: float) -> None:
    values = well()
    values[:, channel] *= np.float32(times)
    assert causes_of(evidence(values))[0] == "outlier channel"


def test_a_range_that_cuts_what_was_seen_saturates() -> None:
    assert causes_of(evidence(well(), high=0.1)) == ("saturating range",)


def test_cutting_a_few_far_values_is_no_saturation() -> None:
    values = well()
    values[0, 0] = 2 * values.max()
    assert causes_of(evidence(values, high=0.5)) == ()


def test_samples_beyond_what_the_calibration_saw_are_a_shift() -> None:
    found = causes_of(evidence(3 * well(), calibrated=well()))
    assert "calibration shift" in found
    assert "saturating range" in found


def test_a_range_far_beyond_what_samples_fill_is_a_shift_and_kills_small_channels() -> None:
    assert causes_of(evidence(well(), low=8, high=8)) == ("calibration shift",)
    assert causes_of(evidence(well(), low=900, high=900)) == ("calibration shift", "dead zero point")


def test_a_tensor_without_channels_is_judged_by_its_values() -> None:
    values = np.abs(normal(4000, 1, seed=0)).reshape(-1, 1)
    flat = Seen(float(values.min()), float(values.max()), seen(values).histogram)
    assert causes_of(Evidence(Range(0.0, 900.0), flat, flat)) == ("calibration shift", "dead zero point")
    assert causes_of(Evidence(minmax(flat), flat, flat)) == ()


def test_clipping_is_counted_in_energies() -> None:
    values = np.full((1000, 1), 1.0, np.float32)
    share, left_db = clipping(Evidence(Range(0.0, 0.5), seen(values), seen(values)))
    assert share == pytest.approx(0.25 / ((0.5 / 255) ** 2 / 12), rel=0.02)
    assert left_db == pytest.approx(10 * np.log10(1 / 0.25), abs=0.1)


def test_weights_with_one_loud_input_channel_are_named() -> None:
    weight = normal(8, 6, 3, 3, seed=0)
    assert weight_causes(weight) == ()
    weight[:, 2] *= 100
    assert weight_causes(weight) == ("outlier channel",)
    assert weight_causes(weight[:, 2:3]) == ()


def test_thresholds_are_in_one_table() -> None:
    values = well()
    values[:, 0] *= 10
    assert causes_of(evidence(values)) == ()
    assert causes_of(evidence(values), type(THRESHOLDS)(outlier=8.0)) == ("outlier channel",)


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_advice_of_one_sentence(cause: Cause) -> None:
    assert advice_for((cause,)) == ADVICE[cause]
    assert ADVICE[cause].endswith(".")


def test_without_a_cause_more_bits_are_advised() -> None:
    assert "fp16" in advice_for(())
