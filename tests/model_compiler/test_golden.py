"""Which rows become golden, and how exactly they must be repeated."""

from __future__ import annotations

import numpy as np
import pytest

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.golden import ROWS, Tolerance, choose_rows, tolerance_for


def logits_for(labels: np.ndarray, margin: float) -> Floats:
    return np.asarray(margin * np.eye(10)[labels], np.float32)


def test_rows_take_turns_through_the_labels() -> None:
    labels = np.repeat(np.arange(10), 20)
    rows = choose_rows({"a.onnx": logits_for(labels, 5.0)}, labels, Tolerance(0.1, 0.01))
    assert len(rows) == ROWS
    assert len(set(rows.tolist())) == ROWS
    counts = np.bincount(labels[rows], minlength=10)
    assert counts.min() >= 1
    assert counts.max() <= 2


def test_no_row_is_wrong_or_close_in_any_artifact() -> None:
    labels = np.repeat(np.arange(10), 20)
    good, wrong, close = logits_for(labels, 5.0), logits_for(labels, 5.0), logits_for(labels, 5.0)
    wrong[::4] = wrong[::4][:, ::-1]
    close[1::4] *= 0.03
    rows = choose_rows({"a.onnx": good, "b.onnx": wrong, "c.onnx": close}, labels, Tolerance(0.1, 0.01))
    assert not np.isin(rows % 4, [0, 1]).any()


def test_fewer_rows_than_wanted_are_taken_where_no_more_are_sure() -> None:
    labels = np.arange(10)
    assert choose_rows({"a.onnx": logits_for(labels, 5.0)}, labels, Tolerance(0.1, 0.01)).tolist() == [*range(10)]


@pytest.mark.parametrize(("sure", "wanted"), [(3, 16), (0, 1)])
def test_hardly_any_sure_row_is_refused(sure: int, wanted: int) -> None:
    labels = np.arange(10)
    logits = logits_for(labels, 5.0)
    logits[sure:] *= 0.01
    with pytest.raises(CompileError, match=f"in only {sure} of 10 samples"):
        choose_rows({"a.onnx": logits}, labels, Tolerance(0.1, 0.01), wanted)


def test_outputs_that_are_small_have_a_tolerance_too() -> None:
    outputs = {"a.onnx": np.array([[0.0012345]], np.float32)}
    assert tolerance_for(outputs, quantized=True).atol == pytest.approx(2.47e-5, rel=1e-9)


def test_int8_gets_room_in_steps_of_its_widest_output_and_fp32_less() -> None:
    outputs = {"a.onnx": np.array([[-30.0, 10.0]], np.float32)}
    assert tolerance_for(outputs, quantized=True) == Tolerance(0.6, 0.02)
    assert tolerance_for(outputs, quantized=False) == Tolerance(0.15, 0.005)
