"""Int8 for CPUs: unsigned activations, signed 7-bit weights per channel, float logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from model_compiler.data.samples import Arrays
from model_compiler.digits.recipe import DigitsBundles
from model_compiler.errors import CompileError
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import Table, table_of
from model_compiler.replay import Ends


def test_weights_are_signed_per_channel_and_activations_unsigned(bundles: DigitsBundles) -> None:
    model = onnx.load(str(bundles.edge.file("cpu.u8s8.onnx")))
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {name: array for name, array in arrays.items() if name.endswith("weight_quantized")}
    assert len(weights) == 3
    for name, weight in weights.items():
        assert weight.dtype == np.int8
        assert 64 <= np.abs(weight.astype(int)).max() <= 127
        assert arrays[name.replace("_quantized", "_scale")].shape == (weight.shape[0],)
    zero_points = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zero_points
    assert all(arrays[name].dtype == np.uint8 for name in zero_points)


def test_logits_stay_float(bundles: DigitsBundles) -> None:
    model = onnx.load(str(bundles.edge.file("cpu.u8s8.onnx")))
    assert model.graph.node[-1].op_type == "Gemm"
    assert model.graph.node[-1].output[0] == "logits"


def test_only_operator_sets_in_use_are_named(bundles: DigitsBundles) -> None:
    model = onnx.load(str(bundles.edge.file("cpu.u8s8.onnx")))
    assert [each.domain for each in model.opset_import] == [""]


def test_quantizing_again_gives_the_same_bytes(bundles: DigitsBundles, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((8, 1, 32, 32), np.float32)
    fp32 = bundles.edge.file("fp32.onnx")
    table = table_of(observe(fp32, Arrays(inputs, np.zeros(8, np.int64)), Ends("image", ("logits",))), "minmax")
    for name in ("a.onnx", "b.onnx"):
        quantize_cpu(fp32, tmp_path / name, table)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_model_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Neg", ["image"], ["logits"])
    ends = [value(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in ("image", "logits")]
    graph = onnx.helper.make_graph([node], "main", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    (tmp_path / "neg.onnx").write_bytes(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    )
    with pytest.raises(CompileError, match="changed nothing"):
        quantize_cpu(tmp_path / "neg.onnx", tmp_path / "int8.onnx", Table("minmax", {}, 1))
