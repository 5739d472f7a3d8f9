"""Where integers go: decided from the graph alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from model_compiler.errors import CompileError
from model_compiler.quantizing.graph import Graph
from model_compiler.quantizing.placement import Keep, Placement, is_depthwise, place_cpu, place_tensorrt, weight_axis
from tests.model_compiler.quantizing.chains import Array, model, node, normal

CONSTANTS = {"w": normal(4, 4, 3, 3, seed=1), "b": normal(4, seed=2), "m": normal(4, 3, seed=3)}


def conv(name: str, source: str) -> onnx.NodeProto:
    return node("Conv", [source, "w", "b"], name, pads=[1, 1, 1, 1])


def answering(source: str) -> list[onnx.NodeProto]:
    return [
        node("GlobalAveragePool", [source], "pool"),
        node("Flatten", ["pool"], "flat"),
        node("Gemm", ["flat", "m"], "logits"),
    ]


def graph(tmp_path: Path, *nodes: onnx.NodeProto, **constants: Array) -> Graph:
    return Graph.read(model(tmp_path / "net.onnx", nodes, {**CONSTANTS, **constants}, ["n", 4, 8, 8]))


def everything(found: Graph) -> set[str]:
    return {"image", *(name for each in found.nodes.values() for name in each.output)}


def cpu(found: Graph, **keep: Keep) -> Placement:
    return place_cpu(found, everything(found), keep)


def tensorrt(found: Graph, **keep: Keep) -> Placement:
    return place_tensorrt(found, everything(found), keep)


def chain(tmp_path: Path) -> Graph:
    return graph(
        tmp_path,
        conv("c1", "image"),
        node("Relu", ["c1"], "r1"),
        node("MaxPool", ["r1"], "p1", kernel_shape=[2, 2], strides=[2, 2]),
        conv("c2", "p1"),
        node("Relu", ["c2"], "r2"),
        *answering("r2"),
    )


def test_on_cpus_what_is_between_layers_is_int8_and_the_answer_float(tmp_path: Path) -> None:
    found = cpu(chain(tmp_path))
    assert found.int8 == {"c1", "p1", "c2", "pool", "flat", "logits"}
    assert found.written == {"r1": "r1", "p1": "r1", "r2": "r2", "pool": "pool", "flat": "pool"}
    assert found.read == {"image": ("c1",)}
    assert found.kept == {}


def test_for_tensorrt_only_what_layers_read_is_rounded(tmp_path: Path) -> None:
    found = tensorrt(chain(tmp_path))
    assert found.int8 == {"c1", "c2", "logits"}
    assert found.written == {}
    assert found.read == {"image": ("c1",), "p1": ("c2",), "flat": ("logits",)}


def test_a_kept_layer_reads_float_and_so_its_maker_computes_in_float(tmp_path: Path) -> None:
    found = cpu(chain(tmp_path), c2="fp16")
    assert found.kept == {"c2": "fp16", "p1": "fp16", "r1": "fp16", "c1": "fp16"}
    assert found.int8 == {"logits"}
    assert found.read == {"flat": ("logits",)}


def test_gemm_writes_float_in_int8_and_stays_when_its_reader_is_kept(tmp_path: Path) -> None:
    nodes = [*answering("image")[:2], node("Gemm", ["flat", "s"], "g1"), node("Gemm", ["g1", "s"], "logits")]
    found = cpu(graph(tmp_path, *nodes, s=normal(4, 4, seed=4)), logits="fp32")
    assert found.int8 == {"g1"}
    assert found.kept == {"logits": "fp32"}


def test_for_tensorrt_a_kept_layer_costs_no_other(tmp_path: Path) -> None:
    found = tensorrt(chain(tmp_path), c2="fp16")
    assert found.int8 == {"c1", "logits"}
    assert found.kept == {"c2": "fp16"}


def test_full_precision_wins_where_two_kept_layers_share_a_maker(tmp_path: Path) -> None:
    nodes = [conv("c1", "image"), conv("c2", "c1"), conv("c3", "c1"), node("Add", ["c2", "c3"], "logits")]
    orders: tuple[tuple[Keep, Keep], ...] = (("fp16", "fp32"), ("fp32", "fp16"))
    for first, second in orders:
        found = place_cpu(graph(tmp_path, *nodes), ["image", "c1", "c2", "c3"], {"c2": first, "c3": second})
        assert found.kept["c1"] == "fp32"


def test_a_tensor_that_a_kept_and_another_layer_read_is_rounded_for_the_other_alone(tmp_path: Path) -> None:
    nodes = [
        conv("c1", "image"),
        conv("c2", "c1"),
        conv("c3", "c1"),
        node("Add", ["c2", "c3"], "a"),
        *answering("a"),
    ]
    found = cpu(graph(tmp_path, *nodes), c2="fp32")
    assert found.read["c1"] == ("c3",)
    assert "c1" not in found.int8
    assert "c3" in found.int8


def test_the_branch_that_joins_a_residual_is_rounded_for_tensorrt(tmp_path: Path) -> None:
    nodes = [
        conv("c1", "image"),
        node("Relu", ["c1"], "r1"),
        conv("c2", "r1"),
        node("Add", ["c2", "r1"], "a"),
        node("Relu", ["a"], "r2"),
        *answering("r2"),
    ]
    found = tensorrt(graph(tmp_path, *nodes))
    assert found.read["r1"] == ("c2", "a")
    assert "c2" not in found.read
    assert "a" in found.int8
    assert "a" not in tensorrt(graph(tmp_path, *nodes), a="fp32").int8


def test_swish_stays_in_int8_between_convolutions(tmp_path: Path) -> None:
    nodes = [
        conv("c1", "image"),
        node("Sigmoid", ["c1"], "s1"),
        node("Mul", ["c1", "s1"], "m1"),
        conv("c2", "m1"),
        *answering("c2"),
    ]
    found = cpu(graph(tmp_path, *nodes))
    assert {"s1", "m1"} <= found.int8
    assert set(found.written) >= {"c1", "s1", "m1"}


def test_what_is_float_on_one_side_is_not_rounded(tmp_path: Path) -> None:
    """Multiplying by a constant, or on the way to the answers, integers win nothing."""
    nodes = [
        conv("c1", "image"),
        node("Tanh", ["c1"], "t"),
        node("Sigmoid", ["t"], "s"),
        node("Mul", ["s", "t"], "logits"),
    ]
    found = cpu(graph(tmp_path, *nodes))
    assert found.int8 == {"c1"}
    assert found.written == {"c1": "c1"}


def test_relu_read_by_others_too_is_no_longer_part_of_the_convolution(tmp_path: Path) -> None:
    nodes = [conv("c1", "image"), node("Relu", ["c1"], "r1"), conv("c2", "r1"), conv("c3", "c1")]
    found = cpu(graph(tmp_path, *nodes, node("Add", ["c2", "c3"], "a"), *answering("a")))
    assert "c1" in found.written
    assert found.read["r1"] == ("c2",)


@pytest.mark.parametrize(("low", "high", "absorbed"), [(0.0, 6.0, True), (-1.0, 1.0, True), (0.5, 6.0, False)])
def test_a_clip_is_done_by_rounding_where_zero_lies_within_it(
    tmp_path: Path, low: float, high: float, absorbed: bool
) -> None:
    clip = node("Clip", ["c1", "low", "high"], "r1")
    ends: dict[str, Array] = {"low": np.float32(low), "high": np.float32(high)}
    found = cpu(graph(tmp_path, conv("c1", "image"), clip, conv("c2", "r1"), *answering("c2"), **ends))
    assert ("c1" not in found.written) == absorbed


def test_layers_without_a_range_or_a_constant_weight_stay_float(tmp_path: Path) -> None:
    found = graph(tmp_path, conv("c1", "image"), node("Conv", ["c1", "c1"], "c2"), *answering("c2"))
    placed = place_cpu(found, everything(found) - {"pool"}, {})
    assert placed.int8 == {"c1", "logits"}
    assert place_cpu(found, everything(found) - {"image"}, {}).int8 == {"logits"}


def test_padding_by_a_number_is_not_a_move(tmp_path: Path) -> None:
    around = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    for value, moves in ((0.0, True), (0.3, False)):
        pad = node("Pad", ["c1", "around", "value"], "padded")
        nodes = [conv("c1", "image"), pad, conv("c2", "padded"), *answering("c2")]
        found = cpu(graph(tmp_path, *nodes, around=around, value=np.asarray(value, np.float32)))
        assert ("padded" in found.int8) == moves


def test_a_name_that_is_no_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no node 'c9' to keep"):
        cpu(chain(tmp_path), c9="fp16")


def test_depthwise_and_channel_axes(tmp_path: Path) -> None:
    found = graph(
        tmp_path,
        node("Conv", ["image", "d"], "deep", group=4),
        node("Conv", ["image", "w"], "plain"),
        node("ConvTranspose", ["image", "w"], "up"),
        node("Flatten", ["image"], "f"),
        node("Gemm", ["f", "g"], "gemm"),
        node("Gemm", ["f", "t"], "turned", transB=1),
        node("MatMul", ["f", "g"], "product"),
        d=normal(4, 1, 3, 3, seed=1),
        g=normal(256, 5, seed=2),
        t=normal(5, 256, seed=3),
    )
    assert [is_depthwise(found, found.nodes[name]) for name in ("deep", "plain")] == [True, False]
    axes = {name: weight_axis(found.nodes[name]) for name in ("deep", "plain", "up", "gemm", "turned", "product")}
    assert axes == {"deep": 0, "plain": 0, "up": 1, "gemm": 1, "turned": 0, "product": 1}
