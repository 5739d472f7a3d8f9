"""Preparing: the same function, every node under one stable name, whatever the exporter wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.prepare import load_prepared, prepare
from model_compiler.replay import Ends, outputs_of
from tests.model_compiler.quantizing.chains import Array, model, node, normal

ENDS = Ends("image", ("logits",))


def written(
    path: Path, nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], *, opset: int, ir: int = 8
) -> Path:
    """A model as an old exporter writes it, weights listed as inputs."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("image", "logits")]
    weights = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    listed = [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in weights]
    graph = helper.make_graph(list(nodes), "main", [ends[0], *listed], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    path.write_bytes(made.SerializeToString())
    return path


def dense(path: Path, *, opset: int, names: Sequence[str] = ("one", "two"), ir: int = 8) -> Path:
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["m"], name=names[0]),
        helper.make_node("Softmax", ["m"], ["logits"], name=names[1], axis=1),
    ]
    return written(path, nodes, {"w": normal(4, 4, seed=1)}, opset=opset, ir=ir)


def inputs() -> Floats:
    return normal(3, 4, seed=0)


def kinds(path: Path) -> list[str]:
    return [each.op_type for each in load_prepared(path).graph.node]


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    prepare(dense(tmp_path / "net.onnx", opset=17), tmp_path / "once.onnx")
    prepare(tmp_path / "once.onnx", tmp_path / "twice.onnx")
    assert (tmp_path / "once.onnx").read_bytes() == (tmp_path / "twice.onnx").read_bytes()


@pytest.mark.parametrize("opset", [11, 13, 17, 20, 23])
def test_models_of_many_opsets_become_one_that_takes_scales_by_channel(tmp_path: Path, opset: int) -> None:
    path = dense(tmp_path / "net.onnx", opset=opset)
    prepare(path, tmp_path / "prepared.onnx")
    made = onnx.load(str(tmp_path / "prepared.onnx"))
    assert [(each.domain, each.version) for each in made.opset_import] == [("", max(opset, 13))]
    assert outputs_of(tmp_path / "prepared.onnx", inputs(), ENDS) == pytest.approx(outputs_of(path, inputs(), ENDS))


def test_a_later_opset_than_the_nodes_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="uses opset 24; runtimes on nodes read up to 23"):
        load_prepared(dense(tmp_path / "net.onnx", opset=24))


def test_the_file_version_is_one_that_the_nodes_read(tmp_path: Path) -> None:
    assert load_prepared(dense(tmp_path / "net.onnx", opset=20, ir=11)).ir_version == 10


@pytest.mark.parametrize("names", [("", ""), ("same", "same"), ("Softmax_1", "")])
def test_nodes_without_a_name_of_their_own_get_one(tmp_path: Path, names: tuple[str, str]) -> None:
    path = dense(tmp_path / "net.onnx", opset=17, names=names)
    found = [each.name for each in load_prepared(path).graph.node]
    assert len(set(found)) == 2
    assert all(found)
    assert found == [each.name for each in load_prepared(path).graph.node]


def test_names_of_their_own_stay(tmp_path: Path) -> None:
    found = load_prepared(dense(tmp_path / "net.onnx", opset=17))
    assert [each.name for each in found.graph.node] == ["one", "two"]


def test_weights_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    found = load_prepared(dense(tmp_path / "net.onnx", opset=17))
    assert [each.name for each in found.graph.input] == ["image"]


def test_the_batch_stays_free(tmp_path: Path) -> None:
    prepare(dense(tmp_path / "net.onnx", opset=17), tmp_path / "prepared.onnx")
    assert outputs_of(tmp_path / "prepared.onnx", normal(7, 4, seed=0), ENDS).shape == (7, 4)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    for name, told in (("text.onnx", "is no whole ONNX file"), ("missing.onnx", "cannot be read")):
        with pytest.raises(CompileError, match=told):
            load_prepared(tmp_path / name)


def test_a_model_that_cannot_run_is_refused_with_the_reason(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"], name="flat")]
    path = written(tmp_path / "net.onnx", nodes, {"w": normal(4, 4, 3, 3, seed=1)}, opset=17)
    with pytest.raises(CompileError, match=r"net\.onnx cannot be prepared"):
        load_prepared(path)


def same_function(path: Path, inputs: Floats) -> None:
    prepared = path.with_name("prepared.onnx")
    prepare(path, prepared)
    wanted = outputs_of(path, inputs, ENDS)
    assert outputs_of(prepared, inputs, ENDS) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bias", [(4,), (1, 4)])
def test_gemm_loses_its_factors(tmp_path: Path, bias: tuple[int, ...]) -> None:
    gemm = node("Gemm", ["image", "w", "b"], "logits", alpha=0.5, beta=3.0, transB=1)
    path = model(tmp_path / "net.onnx", [gemm], {"w": normal(4, 6, seed=1), "b": normal(*bias, seed=2)}, ["n", 6])
    same_function(path, normal(3, 6, seed=0))
    found = load_prepared(path)
    factors = {each.name: each.f for each in found.graph.node[0].attribute if each.name in ("alpha", "beta")}
    assert factors == {"alpha": 1.0, "beta": 1.0}
    assert {len(each.dims) for each in found.graph.initializer if each.name in found.graph.node[0].input} == {1, 2}


def pooled(path: Path, value: float, *, watched: bool = False, left: int = 1) -> Path:
    nodes = [
        node("Pad", ["image", "around", "value"], "padded", mode="constant"),
        node("MaxPool", ["padded"], "logits", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 0, 1]),
    ]
    if watched:
        nodes.insert(1, node("Relu", ["padded"], "other"))
        nodes.append(node("ReduceSum", ["other"], "sum"))
        nodes.append(node("Add", ["logits", "sum"], "total"))
    constants = {"around": np.array([0, 0, 1, left, 0, 0, 0, 1], np.int64), "value": np.float32(value)}
    return model(path, nodes, constants, ["n", 2, 6, 6])


@pytest.mark.parametrize("value", [-np.inf, -3e38])
def test_padding_with_infinity_becomes_the_pools_own(tmp_path: Path, value: float) -> None:
    path = pooled(tmp_path / "net.onnx", value)
    same_function(path, -np.abs(normal(2, 2, 6, 6, seed=0)))
    assert kinds(path) == ["MaxPool"]


def test_padding_with_a_number_or_for_others_or_too_wide_stays(tmp_path: Path) -> None:
    assert "Pad" in kinds(pooled(tmp_path / "half.onnx", 0.5))
    assert "Pad" in kinds(pooled(tmp_path / "watched.onnx", -3e38, watched=True))
    assert "Pad" in kinds(pooled(tmp_path / "wide.onnx", -3e38, left=2))  # with the pool's own as wide as its window


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_pixels_is_a_pool(tmp_path: Path, keepdims: int) -> None:
    mean = node("ReduceMean", ["image", "axes"], "mean", keepdims=keepdims)
    after = node("Relu", ["mean"], "logits")
    path = model(tmp_path / "net.onnx", [mean, after], {"axes": np.array([-1, 2])}, ["n", 2, 6, 6])
    same_function(path, normal(2, 2, 6, 6, seed=0))
    assert kinds(path) == ["GlobalAveragePool", *(["Flatten"] if not keepdims else []), "Relu"]


def test_a_mean_over_channels_stays(tmp_path: Path) -> None:
    mean = node("ReduceMean", ["image", "axes"], "logits", keepdims=1)
    path = model(tmp_path / "net.onnx", [mean], {"axes": np.array([1, 2])}, ["n", 2, 6, 6])
    assert kinds(path) == ["ReduceMean"]
