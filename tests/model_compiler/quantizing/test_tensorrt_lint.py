"""The lint: silent on what we make for TensorRT, and by name on each thing that TensorRT refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import Table, table_of
from model_compiler.quantizing.tensorrt_lint import check_tensorrt, lint
from model_compiler.replay import Ends
from tests.model_compiler.quantizing.chains import Array, convolutions, normal

ENDS = Ends("image", ("logits",))


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convolutions(tmp_path_factory.mktemp("lint") / "fp32.onnx", layers=2, answer_bias=np.zeros(5))


@pytest.fixture(scope="module")
def table(fp32: Path) -> Table:
    return table_of(observe(fp32, Arrays(normal(8, 3, 8, 8, seed=0), np.zeros(8)), ENDS), "minmax")


@pytest.fixture
def made(fp32: Path, table: Table, tmp_path: Path) -> onnx.ModelProto:
    quantize_tensorrt(fp32, tmp_path / "trt.onnx", table)
    return onnx.load(str(tmp_path / "trt.onnx"))


def replace(model: onnx.ModelProto, name: str, values: Array) -> None:
    for each in model.graph.initializer:
        if each.name == name:
            each.CopyFrom(numpy_helper.from_array(values, name))
            return
    raise AssertionError(name)


def at(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.name == name)


def uint8(model: onnx.ModelProto) -> None:
    replace(model, "image_zero_point", np.uint8(0))


def asymmetric(model: onnx.ModelProto) -> None:
    replace(model, "image_zero_point", np.int8(-3))


def asymmetric_weight(model: onnx.ModelProto) -> None:
    replace(model, "w2_zero_point", np.arange(8, dtype=np.int8))


def no_zero_point(model: onnx.ModelProto) -> None:
    del at(model, "image_QuantizeLinear").input[2]


def half_scale(model: onnx.ModelProto) -> None:
    replace(model, "a1_scale", np.float16(0.1))


def zero_scale(model: onnx.ModelProto) -> None:
    replace(model, "a1_scale", np.float32(0))


def wrong_axis(model: onnx.ModelProto) -> None:
    at(model, "w2_DequantizeLinear").attribute[0].i = 1


def wrong_count(model: onnx.ModelProto) -> None:
    replace(model, "w2_scale", np.ones(7, np.float32))


def scales_of_an_activation(model: onnx.ModelProto) -> None:
    replace(model, "a1_scale", np.full(8, 0.1, np.float32))


def torn_pair(model: onnx.ModelProto) -> None:
    at(model, "a1_DequantizeLinear").input[1] = "image_scale"


def computed_scale(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", ["a1_scale"], ["computed"], name="abs"))
    at(model, "a1_QuantizeLinear").input[1] = "computed"


def float_input(model: onnx.ModelProto) -> None:
    at(model, "c2").input[0] = "a1"


def integer_bias(model: onnx.ModelProto) -> None:
    constants = {"q": np.zeros(8, np.int32), "s": np.ones(8, np.float32), "z": np.zeros(8, np.int32)}
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["b"], name="bias", axis=0))
    at(model, "c2").input[2] = "b"


def foreign_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def late_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def integer_reader(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        helper.make_node("MaxPool", ["a1_QuantizeLinear_Output"], ["int8_pool"], name="pool", kernel_shape=[2, 2])
    )


BROKEN: dict[Callable[[onnx.ModelProto], None], str] = {
    uint8: "QuantizeLinear 'image_QuantizeLinear': it is uint8",
    asymmetric: "QuantizeLinear 'image_QuantizeLinear': its zero point is -3, not 0",
    asymmetric_weight: "DequantizeLinear 'w2_DequantizeLinear': its zero point is 1, not 0",
    no_zero_point: "QuantizeLinear 'image_QuantizeLinear': it has no zero point",
    half_scale: "QuantizeLinear 'a1_QuantizeLinear': its scale is float16",
    zero_scale: "QuantizeLinear 'a1_QuantizeLinear': a scale is not a positive finite number",
    wrong_axis: "DequantizeLinear 'w2_DequantizeLinear': its scales lie along axis 1",
    wrong_count: "DequantizeLinear 'w2_DequantizeLinear': 7 scales do not fit axis 0",
    scales_of_an_activation: "QuantizeLinear 'a1_QuantizeLinear': it has 8 scales for an activation",
    torn_pair: "QuantizeLinear 'a1_QuantizeLinear': 'a1_DequantizeLinear' reads it back with another scale",
    computed_scale: "QuantizeLinear 'a1_QuantizeLinear': its scale is computed",
    float_input: "Conv 'c2': its weight is int8 and its input is not rounded",
    integer_bias: "DequantizeLinear 'bias': a bias is stored as int32",
    foreign_domain: "opset: the domain 'com.microsoft' is not of ONNX",
    late_opset: "opset: version 21 is not 13 to 20",
    integer_reader: "QuantizeLinear 'a1_QuantizeLinear': MaxPool 'pool' reads int8 itself",
}


def test_what_we_make_for_tensorrt_has_no_violation(made: onnx.ModelProto) -> None:
    assert lint(made) == []


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda each: each.__name__)
def test_each_violation_is_told_with_its_node(made: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], None]) -> None:
    spoil(made)
    assert any(each.startswith(BROKEN[spoil]) for each in lint(made)), lint(made)


def test_a_float_model_is_told_to_hold_no_int8(fp32: Path) -> None:
    assert lint(onnx.load(str(fp32))) == ["the model has no QuantizeLinear: nothing in it is int8"]


def test_a_file_for_cpus_is_refused_with_all_that_is_wrong(fp32: Path, table: Table, tmp_path: Path) -> None:
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table)
    with pytest.raises(CompileError) as refused:
        check_tensorrt(tmp_path / "cpu.onnx")
    told = str(refused.value)
    assert "'image_QuantizeLinear': it is uint8" in told
    assert "'b1_DequantizeLinear': a bias is stored as int32" in told
    assert "quantize_tensorrt" in told


def test_int8_named_by_the_operator_itself_needs_no_zero_point(made: onnx.ModelProto) -> None:
    """Opset 21 can say so; older readers would take uint8."""
    no_zero_point(made)
    at(made, "image_QuantizeLinear").attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert lint(made) == []
