"""Bias correction: the mean of every channel is the float model's again, in the form that each target takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.correct_bias import correct_bias
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import Range, Table, table_of
from model_compiler.quantizing.tensorrt_lint import check_tensorrt
from model_compiler.replay import outputs_of
from tests.model_compiler.quantizing.chains import model, node, normal
from tests.model_compiler.quantizing.patient import ENDS, Patient, patient


@pytest.fixture
def case(tmp_path: Path) -> Patient:
    """Every range clipped to a third: rounding has a mean."""
    made = patient(tmp_path)
    clipped = {name: Range(each.low / 3, each.high / 3) for name, each in made.table.ranges.items()}
    table = Table("minmax", clipped, made.table.rows)
    quantize_cpu(made.fp32, made.int8, table)
    return Patient(made.fp32, made.int8, made.observations, table, made.samples)


def mean_error(fp32: Path, quantized: Path, inputs: Floats, *, literal: bool = False) -> float:
    difference = outputs_of(quantized, inputs, ENDS, literal=literal) - outputs_of(fp32, inputs, ENDS)
    return float(np.abs(difference.mean(axis=0)).max())


def test_the_mean_error_vanishes_where_it_was_measured_and_shrinks_elsewhere(case: Patient, tmp_path: Path) -> None:
    out, measured = tmp_path / "out.onnx", case.samples.inputs[:128]
    assert correct_bias(case.fp32, case.int8, out, case.samples, ENDS) == 6
    before = mean_error(case.fp32, case.int8, measured)
    assert mean_error(case.fp32, out, measured) < before / 20
    assert mean_error(case.fp32, out, case.samples.inputs[128:]) < before / 4


def test_biases_for_cpus_stay_int32_in_the_steps_they_had(case: Patient, tmp_path: Path) -> None:
    correct_bias(case.fp32, case.int8, tmp_path / "out.onnx", case.samples, ENDS)
    before, after = (onnx.load(str(path)) for path in (case.int8, tmp_path / "out.onnx"))
    kinds = [
        [(each.name, each.data_type, list(each.dims)) for each in one.graph.initializer] for one in (before, after)
    ]
    assert kinds[0] == kinds[1]
    assert {data_type for name, data_type, _ in kinds[1] if name.startswith("b") and name.endswith("_quantized")} == {
        onnx.TensorProto.INT32
    }


def test_files_for_tensorrt_stay_free_of_integer_biases(case: Patient, tmp_path: Path) -> None:
    quantize_tensorrt(case.fp32, case.int8, case.table)
    out = tmp_path / "out.onnx"
    correct_bias(case.fp32, case.int8, out, case.samples, ENDS, literal=True)
    check_tensorrt(out)
    measured = case.samples.inputs[:128]
    before = mean_error(case.fp32, case.int8, measured, literal=True)
    assert mean_error(case.fp32, out, measured, literal=True) < before / 20


def test_a_convolution_without_a_bias_is_given_one(tmp_path: Path) -> None:
    fp32, int8, out = (tmp_path / f"{name}.onnx" for name in ("fp32", "int8", "out"))
    constants = {"w1": normal(4, 3, 3, 3, seed=1), "w2": normal(4, 6, seed=2)}
    nodes = [
        node("Conv", ["image", "w1"], "c1"),
        node("GlobalAveragePool", ["c1"], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "w2"], "logits"),
    ]
    model(fp32, nodes, constants, ["n", 3, 8, 8])
    samples = Arrays(normal(64, 3, 8, 8, seed=0) + 1, np.zeros(64, np.int64))
    table = table_of(observe(fp32, samples, ENDS), "minmax")
    ranges = {name: Range(each.low / 2, each.high / 2) for name, each in table.ranges.items()}
    for quantize, literal in ((quantize_cpu, False), (quantize_tensorrt, True)):
        quantize(fp32, int8, Table("minmax", ranges, 64))
        assert correct_bias(fp32, int8, out, samples, ENDS, literal=literal) == 2
        before = mean_error(fp32, int8, samples.inputs, literal=literal)
        assert mean_error(fp32, out, samples.inputs, literal=literal) < before / 20


def test_correcting_twice_gives_the_same_bytes(case: Patient, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        correct_bias(case.fp32, case.int8, tmp_path / name, case.samples, ENDS)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_float_file_is_refused(case: Patient, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no bias to correct"):
        correct_bias(case.fp32, case.fp32, tmp_path / "out.onnx", case.samples, ENDS)
