"""Weight-only int4: what MatMulNBits reads, of Gemm too, with every byte counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.int4 import BLOCKS, Packed, pack, quantize_int4
from model_compiler.quantizing.sqnr import sqnr_db
from model_compiler.replay import outputs_of
from tests.model_compiler.quantizing.chains import Array, model, node, normal
from tests.model_compiler.quantizing.nets import ENDS, residual


def dense(path: Path) -> Path:
    """Gemm both ways round with factors, and a MatMul whose 190 rows are no whole number of blocks."""
    constants: dict[str, Array] = {
        "w1": normal(256, 512, seed=1) / 16,
        "b1": normal(512, seed=2),
        "w2": normal(190, 512, seed=3) / 23,
        "b2": normal(1, 190, seed=4),
        "w3": normal(190, 256, seed=5) / 8,
    }
    nodes = [
        node("Gemm", ["image", "w1", "b1"], "h", alpha=0.5, beta=2.0),
        node("Relu", ["h"], "r"),
        node("Gemm", ["r", "w2", "b2"], "g", transB=1),
        node("MatMul", ["g", "w3"], "logits"),
    ]
    return model(path, nodes, constants, ["n", 256])


def restored(packed: Packed, shape: tuple[int, int], block: int) -> Floats:
    """What the bytes stand for, by the definition of MatMulNBits."""
    k, n = shape

    def two(values: np.ndarray) -> np.ndarray:
        return np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:-1], -1).astype(np.float32)

    zeros = two(packed.zero_points)[:, : packed.scales.shape[1], None]
    values = (two(packed.levels) - zeros) * packed.scales.astype(np.float32)[..., None]
    assert packed.levels.shape == (n, -(-k // block), block // 2)
    return np.ascontiguousarray(values.reshape(n, -1)[:, :k].T)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(32, 100), st.integers(1, 5)), elements=st.floats(-4, 4, width=32)))
def test_bytes_stand_for_the_values_that_are_left(weight: Floats) -> None:
    packed = pack(weight, 32)
    assert restored(packed, weight.shape, 32) == pytest.approx(packed.values, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(32, 100), st.integers(1, 5)), elements=st.floats(-4, 4, width=32)))
def test_no_weight_is_further_off_than_its_block_is_wide(weight: Floats) -> None:
    """Half a step, and what shrinking a block by a fifth at either end may cut."""
    wide = float(weight.max() - weight.min() + np.abs(weight).max())
    assert np.abs(pack(weight, 32).values - weight).max() <= 0.24 * wide + 1e-30


def test_shrinking_blocks_is_never_worse_than_their_whole_range() -> None:
    weight = normal(256, 64, seed=0)
    blocks = weight.reshape(8, 32, 64)
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    scale = (high - low) / 15
    plain = (np.clip(np.rint(blocks / scale) + np.rint(-low / scale), 0, 15) - np.rint(-low / scale)) * scale
    assert sqnr_db(weight, pack(weight, 32).values) > sqnr_db(blocks, plain) + 0.2


@pytest.mark.parametrize("block", BLOCKS)
def test_every_product_is_packed_and_the_runtime_computes_what_the_bytes_say(tmp_path: Path, block: int) -> None:
    fp32 = dense(tmp_path / "fp32.onnx")
    result = quantize_int4(fp32, tmp_path / "int4.onnx", block=block)
    made = onnx.load(str(tmp_path / "int4.onnx"))
    assert Counter(each.op_type for each in made.graph.node) == {"MatMulNBits": 3, "Add": 2, "Relu": 1, "Cast": 3}
    assert (result.nodes, result.left) == (("h", "g", "logits"), ())
    inputs = normal(16, 256, seed=0)
    wanted = outputs_of(fp32, inputs, ENDS)
    assert sqnr_db(wanted, outputs_of(tmp_path / "int4.onnx", inputs, ENDS)) > {32: 16, 64: 15, 128: 13.5}[block]


def test_the_runtime_multiplies_by_exactly_what_was_packed(tmp_path: Path) -> None:
    weight = normal(96, 24, seed=1)
    fp32 = model(tmp_path / "fp32.onnx", [node("MatMul", ["image", "w"], "logits")], {"w": weight}, ["n", 96])
    quantize_int4(fp32, tmp_path / "int4.onnx")
    got = outputs_of(tmp_path / "int4.onnx", np.eye(96, dtype=np.float32), ENDS)
    assert got == pytest.approx(pack(weight, 32).values, abs=1e-6)


@pytest.mark.parametrize(("block", "least"), [(32, 0.85), (64, 0.86), (128, 0.84)])
def test_at_least_84_percent_smaller_with_scales_and_zero_points(tmp_path: Path, block: int, least: float) -> None:
    fp32 = dense(tmp_path / "fp32.onnx")
    result = quantize_int4(fp32, tmp_path / "int4.onnx", block=block)
    assert result.weight_bytes == 4 * (256 * 512 + 190 * 512 + 190 * 256)
    assert result.share_smaller > least
    assert result.file_bytes == (tmp_path / "int4.onnx").stat().st_size
    assert result.file_share_smaller > least - 0.01
    parts = onnx.load(str(tmp_path / "int4.onnx")).graph.initializer
    counted = [each for each in parts if each.name.endswith(("_int4", "_scales", "_zero_points"))]
    assert result.packed_bytes == sum(onnx.numpy_helper.to_array(each).nbytes for each in counted)


def test_the_operators_of_the_runtime_stay_declared(tmp_path: Path) -> None:
    quantize_int4(dense(tmp_path / "fp32.onnx"), tmp_path / "int4.onnx")
    made = onnx.load(str(tmp_path / "int4.onnx"))
    assert {(each.domain, each.version) for each in made.opset_import} == {("", 20), ("com.microsoft", 1)}
    assert made.ir_version <= 10


def test_scales_too_small_for_half_precision_are_stored_whole(tmp_path: Path) -> None:
    weight = normal(64, 8, seed=1) * np.float32(1e-7)
    packed = pack(weight, 32)
    assert packed.scales.dtype == np.float32
    assert sqnr_db(weight, packed.values) > 20
    fp32 = model(tmp_path / "fp32.onnx", [node("MatMul", ["image", "w"], "logits")], {"w": weight}, ["n", 64])
    quantize_int4(fp32, tmp_path / "int4.onnx")
    inputs = normal(8, 64, seed=0)
    assert sqnr_db(outputs_of(fp32, inputs, ENDS), outputs_of(tmp_path / "int4.onnx", inputs, ENDS)) > 18


def test_a_kept_node_and_products_of_two_activations_stay(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["image", "w"], "a"),
        node("MatMul", ["a", "v"], "b"),
        node("Transpose", ["b"], "t", perm=[1, 0]),
        node("MatMul", ["t", "b"], "logits"),
    ]
    constants = {"w": normal(64, 64, seed=1), "v": normal(64, 64, seed=2)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 64])
    result = quantize_int4(fp32, tmp_path / "int4.onnx", keep=("b",))
    assert (result.nodes, result.left) == (("a",), ("b", "logits"))


def test_a_weight_that_two_nodes_share_is_stored_and_counted_once(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["image", "w"], "a"), node("Relu", ["a"], "r"), node("MatMul", ["r", "w"], "logits")]
    fp32 = model(tmp_path / "fp32.onnx", nodes, {"w": normal(64, 64, seed=1)}, ["n", 64])
    result = quantize_int4(fp32, tmp_path / "int4.onnx")
    assert (len(result.nodes), result.weight_bytes) == (2, 4 * 64 * 64)


def test_what_nothing_changed_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="changed nothing: of Add, Clip, Conv"):
        quantize_int4(residual(tmp_path / "fp32.onnx"), tmp_path / "int4.onnx")


def test_other_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="Use 32, 64 or 128"):
        quantize_int4(dense(tmp_path / "fp32.onnx"), tmp_path / "int4.onnx", block=48)
