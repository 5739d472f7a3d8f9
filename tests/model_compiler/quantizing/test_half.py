"""Half precision: float16 inside, float32 outside, and no weight or sum that float16 cannot hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.quantizing.half import store_fp16, to_fp16
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.sqnr import sqnr_db
from model_compiler.replay import Ends, outputs_of
from tests.model_compiler.quantizing.chains import model, node, normal
from tests.model_compiler.quantizing.nets import ENDS, pictures, residual, swish


def kinds(path: Path) -> dict[str, int]:
    """The element type of every tensor that a node writes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True).graph
    return {each.name: each.type.tensor_type.elem_type for each in (*graph.value_info, *graph.output)}


@pytest.mark.parametrize("build", [residual, swish])
def test_half_the_bytes_and_the_same_answers(tmp_path: Path, build: type) -> None:
    fp32: Path = build(tmp_path / "fp32.onnx")
    to_fp16(fp32, tmp_path / "fp16.onnx")
    onnx.checker.check_model(onnx.load(str(tmp_path / "fp16.onnx")), full_check=True)
    weights = onnx.load(str(tmp_path / "fp16.onnx")).graph.initializer
    assert {each.data_type for each in weights} <= {TensorProto.FLOAT16, TensorProto.INT64}
    inputs = pictures(16, seed=9)
    wanted = outputs_of(fp32, inputs, ENDS)
    assert sqnr_db(wanted, outputs_of(tmp_path / "fp16.onnx", inputs, ENDS, literal=True)) > 55


def test_inputs_and_outputs_stay_float32_and_all_between_is_half(tmp_path: Path) -> None:
    to_fp16(residual(tmp_path / "fp32.onnx"), tmp_path / "fp16.onnx")
    made = onnx.load(str(tmp_path / "fp16.onnx"))
    for end in (*made.graph.input, *made.graph.output):
        assert end.type.tensor_type.elem_type == TensorProto.FLOAT
    assert Counter(each.op_type for each in made.graph.node)["Cast"] == 2
    assert Counter(kinds(tmp_path / "fp16.onnx").values()) == {TensorProto.FLOAT16: 14, TensorProto.FLOAT: 1}


def test_a_weight_beyond_half_precision_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["image", "w"], "logits")]
    fp32 = model(tmp_path / "fp32.onnx", nodes, {"w": np.full((4, 4), 1e5, np.float32)}, ["n", 4])
    with pytest.raises(CompileError, match=r"Weight 'w' reaches 1e\+05, and float16 ends at 65504"):
        to_fp16(fp32, tmp_path / "fp16.onnx")


def test_what_overflows_easily_stays_float32(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["image", "k"], "m"),
        node("Exp", ["m"], "e"),
        node("ReduceSum", ["e", "axes"], "s", keepdims=1),
        node("Log", ["s"], "logits"),
    ]
    constants = {"k": np.full((1,), 2, np.float32), "axes": np.array([1])}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 4])
    to_fp16(fp32, tmp_path / "fp16.onnx")
    found = kinds(tmp_path / "fp16.onnx")
    assert (found["m_half"], found["e"], found["s"]) == (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT)
    inputs = np.full((1, 4), 8, np.float32)
    assert outputs_of(tmp_path / "fp16.onnx", inputs, ENDS, literal=True) == pytest.approx(
        outputs_of(fp32, inputs, ENDS), rel=1e-2
    )


def test_what_was_seen_beyond_half_precision_stays_float32(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["image", "up"], "large"),
        node("Mul", ["large", "down"], "small"),
        node("MatMul", ["small", "w"], "logits"),
    ]
    constants = {"up": np.float32(6e4), "down": np.float32(1 / 4096), "w": normal(4, 4, seed=1)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 4])
    inputs = normal(8, 4, seed=0) + 2
    seen = observe(fp32, Arrays(inputs, np.zeros(8)), ENDS)
    to_fp16(fp32, tmp_path / "blind.onnx")
    assert "large_half" in kinds(tmp_path / "blind.onnx")  # which overflows where float16 is not computed by casting
    to_fp16(fp32, tmp_path / "seeing.onnx", seen=seen)
    found = kinds(tmp_path / "seeing.onnx")
    assert (found["large"], found["small"], found["logits_half"]) == (
        TensorProto.FLOAT,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    )
    assert "large_half" not in found
    wanted = outputs_of(fp32, inputs, ENDS)
    assert sqnr_db(wanted, outputs_of(tmp_path / "seeing.onnx", inputs, ENDS, literal=True)) > 50


def test_what_keeps_a_divisor_from_zero_stays(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["image", "image"], "squares"),
        node("ReduceMean", ["squares", "axes"], "mean", keepdims=1),
        node("Add", ["mean", "tiny"], "sum"),
        node("Sqrt", ["sum"], "length"),
        node("Div", ["image", "length"], "unit"),
        node("MatMul", ["unit", "w"], "logits"),
    ]
    constants = {"axes": np.array([1]), "tiny": np.full((1,), 1e-12, np.float32), "w": normal(4, 4, seed=1)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 4])
    to_fp16(fp32, tmp_path / "fp16.onnx")
    found = kinds(tmp_path / "fp16.onnx")
    assert {found[name] for name in ("sum", "length", "unit")} == {TensorProto.FLOAT}
    assert found["logits_half"] == TensorProto.FLOAT16
    assert (
        outputs_of(tmp_path / "fp16.onnx", np.zeros((2, 4), np.float32), ENDS, literal=True).tolist() == [[0.0] * 4] * 2
    )


def test_a_limit_beyond_half_precision_stays(tmp_path: Path) -> None:
    nodes = [node("Clip", ["image", "low", "high"], "c"), node("MatMul", ["c", "w"], "logits")]
    constants = {"low": np.asarray(-3e38, np.float32), "high": np.asarray(6, np.float32), "w": normal(4, 4, seed=1)}
    to_fp16(model(tmp_path / "fp32.onnx", nodes, constants, ["n", 4]), tmp_path / "fp16.onnx")
    assert kinds(tmp_path / "fp16.onnx")["c"] == TensorProto.FLOAT


def test_scales_of_a_resize_stay_float32(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["image", "w"], "c", pads=[1, 1, 1, 1]),
        node("Resize", ["c", "", "scales"], "logits", mode="nearest"),
    ]
    constants = {"w": normal(2, 3, 3, 3, seed=1), "scales": np.array([1, 1, 2, 2], np.float32)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 3, 6, 6])
    to_fp16(fp32, tmp_path / "fp16.onnx")
    onnx.checker.check_model(onnx.load(str(tmp_path / "fp16.onnx")), full_check=True)
    inputs = normal(2, 3, 6, 6, seed=0)
    wanted = outputs_of(fp32, inputs, ENDS)
    assert sqnr_db(wanted, outputs_of(tmp_path / "fp16.onnx", inputs, ENDS, literal=True)) > 55


def test_a_tensor_that_both_precisions_read_is_cast_once(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["image"], "r"),
        node("Exp", ["r"], "e1"),
        node("Softplus", ["r"], "e2"),
        node("Add", ["e1", "e2"], "a"),
        node("Mul", ["a", "r"], "logits"),
    ]
    fp32 = model(tmp_path / "fp32.onnx", nodes, {}, ["n", 4])
    to_fp16(fp32, tmp_path / "fp16.onnx")
    casts = [each for each in onnx.load(str(tmp_path / "fp16.onnx")).graph.node if each.op_type == "Cast"]
    assert sorted(each.input[0] for each in casts) == ["e1", "e2", "image", "logits_half", "r_half"]


def test_a_branch_that_reads_from_outside_reads_what_it_read(tmp_path: Path) -> None:
    """Graphs inside a node name tensors around it."""
    inner = [
        onnx.helper.make_graph(
            [node("Add", ["r", each], f"o_{each}")],
            each,
            [],
            [onnx.helper.make_tensor_value_info(f"o_{each}", TensorProto.FLOAT, None)],
        )
        for each in ("one", "two")
    ]
    nodes = [
        node("Relu", ["image"], "r"),
        node("If", ["yes"], "i", then_branch=inner[0], else_branch=inner[1]),
        node("Mul", ["i", "r"], "logits"),
    ]
    constants = {"yes": np.array(True), "one": np.float32(1), "two": np.float32(2)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 4])
    to_fp16(fp32, tmp_path / "fp16.onnx")
    inputs = normal(4, 4, seed=0)
    assert outputs_of(tmp_path / "fp16.onnx", inputs, ENDS, literal=True) == pytest.approx(
        outputs_of(fp32, inputs, ENDS), rel=5e-3
    )


def test_what_nothing_was_changed_in_is_refused(tmp_path: Path) -> None:
    fp32 = model(tmp_path / "fp32.onnx", [node("Exp", ["image"], "logits")], {}, ["n", 4])
    with pytest.raises(CompileError, match="none of Exp computes in it"):
        to_fp16(fp32, tmp_path / "fp16.onnx")


def test_several_outputs_stay_float32(tmp_path: Path) -> None:
    nodes = [node("Relu", ["image"], "first"), node("Tanh", ["first"], "logits")]
    fp32 = model(tmp_path / "fp32.onnx", nodes, {}, ["n", 4])
    opened = onnx.load(str(fp32))
    opened.graph.output.append(onnx.helper.make_tensor_value_info("first", TensorProto.FLOAT, ["n", 4]))
    fp32.write_bytes(opened.SerializeToString())
    to_fp16(fp32, tmp_path / "fp16.onnx")
    inputs, ends = normal(4, 4, seed=0), Ends("image", ("first", "logits"))
    assert outputs_of(tmp_path / "fp16.onnx", inputs, ends, literal=True).dtype == np.float32


@pytest.mark.parametrize("build", [residual, swish])
def test_weights_stored_in_half_are_computed_with_as_before(tmp_path: Path, build: type) -> None:
    fp32: Path = build(tmp_path / "fp32.onnx")
    store_fp16(fp32, tmp_path / "fp16.onnx")
    made = onnx.load(str(tmp_path / "fp16.onnx"))
    onnx.checker.check_model(made, full_check=True)
    assert {each.data_type for each in made.graph.initializer if len(each.dims) > 1} == {TensorProto.FLOAT16}
    inputs = pictures(16, seed=9)
    wanted = outputs_of(fp32, inputs, ENDS)
    assert sqnr_db(wanted, outputs_of(tmp_path / "fp16.onnx", inputs, ENDS)) > 55
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "fp16.onnx"), options, providers=["CPUExecutionProvider"])
    kept = Counter(each.op_type for each in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    assert kept["Cast"] == 0  # done once, at load


def test_a_model_without_weights_cannot_be_stored_in_half(tmp_path: Path) -> None:
    fp32 = model(tmp_path / "fp32.onnx", [node("Tanh", ["image"], "logits")], {}, ["n", 4])
    with pytest.raises(CompileError, match="Nothing was stored as float16"):
        store_fp16(fp32, tmp_path / "fp16.onnx")
