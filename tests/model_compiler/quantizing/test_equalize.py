"""Cross-layer equalization: the same answers, channels of equal range; nothing across what is not homogeneous."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.equalize import Equalized, equalize
from model_compiler.replay import Ends, outputs_of
from tests.model_compiler.quantizing.chains import Array, model, node, normal

ENDS = Ends("image", ("logits",))


def separable(path: Path, scales: Array, between: str = "Relu") -> Path:
    """Convolution, depthwise convolution, convolution, Gemm; channel i of the first two `scales[i]` times too large."""
    channels = len(scales)
    up, down = scales.reshape(-1, 1, 1, 1), (1 / scales).reshape(1, -1, 1, 1)
    constants = {
        "w1": (normal(channels, 3, 3, 3, seed=1) * up).astype(np.float32),
        "b1": (normal(channels, seed=2) * scales).astype(np.float32),
        "w2": normal(channels, 1, 3, 3, seed=3),
        "b2": (normal(channels, seed=4) * scales).astype(np.float32),
        "w3": (normal(6, channels, 1, 1, seed=5) * down).astype(np.float32),
        "w4": normal(6 * 16, 4, seed=6),
    }
    nodes = [
        node("Conv", ["image", "w1", "b1"], "c1", pads=[1, 1, 1, 1]),
        node(between, ["c1"], "a1"),
        node("Conv", ["a1", "w2", "b2"], "c2", pads=[1, 1, 1, 1], group=channels),
        node(between, ["c2"], "a2"),
        node("Conv", ["a2", "w3"], "c3"),
        node("LeakyRelu", ["c3"], "a3"),
        node("MaxPool", ["a3"], "p3", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p3"], "f3"),
        node("Gemm", ["f3", "w4"], "logits"),
    ]
    return model(path, nodes, constants, ["n", 3, 8, 8])


def inputs() -> Floats:
    return normal(4, 3, 8, 8, seed=0)


def spread(path: Path, tensor: str) -> float:
    """The widest over the narrowest output channel of a weight (out, ...)."""
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer}
    widths = np.abs(arrays[tensor]).reshape(len(arrays[tensor]), -1).max(axis=1)
    return float(widths.max() / widths.min())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_answers_stay_and_channels_become_alike_whatever_their_scales(
    tmp_path_factory: pytest.TempPathFactory, powers: list[float]
) -> None:
    work = tmp_path_factory.mktemp("equalize")
    scales = np.asarray(10.0 ** np.array(powers))
    before = separable(work / "fp32.onnx", scales)
    changes = equalize(before, work / "out.onnx")
    assert [(each.first, each.second) for each in changes] == [("c1", "c2"), ("c2", "c3"), ("c3", "logits")]
    wanted = outputs_of(before, inputs(), ENDS)
    assert outputs_of(work / "out.onnx", inputs(), ENDS) == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    even = equalize(separable(work / "even.onnx", np.ones(5)), work / "even_out.onnx")
    assert [each.precision_after for each in changes] == pytest.approx([e.precision_after for e in even], rel=0.05)


def test_the_change_is_told(tmp_path: Path) -> None:
    scales = np.array([100.0, 1, 1, 1, 1])
    before = separable(tmp_path / "fp32.onnx", scales)
    first = equalize(before, tmp_path / "out.onnx")[0]
    assert isinstance(first, Equalized)
    assert first.channels == 5
    assert first.changed > 20
    assert first.precision_after > 2 * first.precision_before
    assert spread(tmp_path / "out.onnx", "w1") < spread(before, "w1") / 5


@pytest.mark.parametrize("between", ["Sigmoid", "Tanh", "HardSwish", "Softplus"])
def test_nothing_goes_across_what_is_not_homogeneous(tmp_path: Path, between: str) -> None:
    changes = equalize(separable(tmp_path / "fp32.onnx", np.array([100.0, 1, 1, 1, 1]), between), tmp_path / "out.onnx")
    assert [(each.first, each.second) for each in changes] == [("c3", "logits")]


def test_nothing_goes_across_a_tensor_that_two_take(tmp_path: Path) -> None:
    constants = {"w1": normal(4, 3, 1, 1, seed=1), "w2": normal(4, 4, 1, 1, seed=2)}
    nodes = [
        node("Conv", ["image", "w1"], "c1"),
        node("Conv", ["c1", "w2"], "c2"),
        node("Add", ["c1", "c2"], "logits"),
    ]
    before = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 3, 4, 4])
    assert equalize(before, tmp_path / "out.onnx") == []


def test_a_dead_channel_is_left_alone(tmp_path: Path) -> None:
    w1 = normal(4, 3, 1, 1, seed=1)
    w1[2] = 0
    constants = {"w1": w1, "w2": normal(4, 4, 1, 1, seed=2)}
    nodes = [node("Conv", ["image", "w1"], "c1"), node("Relu", ["c1"], "a1"), node("Conv", ["a1", "w2"], "logits")]
    before = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 3, 4, 4])
    assert len(equalize(before, tmp_path / "out.onnx")) == 1
    wanted = outputs_of(before, normal(2, 3, 4, 4, seed=0), ENDS)
    assert outputs_of(tmp_path / "out.onnx", normal(2, 3, 4, 4, seed=0), ENDS) == pytest.approx(wanted, abs=1e-4)


def test_a_matmul_takes_its_added_bias_along(tmp_path: Path) -> None:
    constants = {"w1": normal(8, 6, seed=1), "b1": normal(6, seed=2), "w2": normal(6, 3, seed=3)}
    constants["w1"][:, 0] *= 100
    constants["b1"][0] *= 100
    nodes = [
        node("MatMul", ["image", "w1"], "m1"),
        node("Add", ["m1", "b1"], "s1"),
        node("Relu", ["s1"], "a1"),
        node("MatMul", ["a1", "w2"], "logits"),
    ]
    before = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 8])
    assert [each.changed > 3 for each in equalize(before, tmp_path / "out.onnx")] == [True]


def test_equalizing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    before = separable(tmp_path / "fp32.onnx", np.array([10.0, 1, 1, 1, 1]))
    for name in ("a.onnx", "b.onnx"):
        equalize(before, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_free_shape_asks_for_inputs(tmp_path: Path) -> None:
    constants = {"w1": normal(4, 3, 1, 1, seed=1), "w2": normal(4, 4, 1, 1, seed=2)}
    nodes = [node("Conv", ["image", "w1"], "c1"), node("Conv", ["c1", "w2"], "logits")]
    before = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 3, "height", "width"])
    with pytest.raises(CompileError, match="give real inputs"):
        equalize(before, tmp_path / "out.onnx")
    assert len(equalize(before, tmp_path / "out.onnx", inputs=normal(2, 3, 5, 7, seed=0))) == 1
