"""Observing: every float tensor, all of its values, whatever the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.observe import BINS, Observations, observe
from model_compiler.replay import Ends
from tests.model_compiler.quantizing.chains import model, node, normal

ENDS = Ends("image", ("logits",))
WEIGHT = normal(5, 3, 3, 3, seed=1)


def samples(inputs: Floats) -> Arrays:
    return Arrays(inputs, np.zeros(len(inputs), np.int64))


def net(path: Path, batch: str | int = "n") -> Path:
    nodes = [
        node("Conv", ["image", "w"], "c", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "p"),
        node("Flatten", ["p"], "f"),
        node("MatMul", ["f", "m"], "logits"),
    ]
    return model(path, nodes, {"w": WEIGHT, "m": normal(5, 4, seed=2)}, [batch, 3, 6, 6])


@pytest.fixture
def inputs() -> Floats:
    return normal(11, 3, 6, 6, seed=0)


def test_every_float_tensor_is_seen_whole(tmp_path: Path, inputs: Floats) -> None:
    found = observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS)
    assert set(found.tensors) == {"image", "c", "r", "p", "f", "logits"}
    assert found.rows == 11
    counts = {name: int(seen.histogram.sum()) for name, seen in found.tensors.items()}
    assert counts == {"image": 11 * 108, "c": 11 * 180, "r": 11 * 180, "p": 55, "f": 55, "logits": 44}
    image = found.tensors["image"]
    assert (image.low, image.high) == (inputs.min(), inputs.max())
    assert image.channel_low is not None
    assert image.channel_low == pytest.approx(inputs.min(axis=(0, 2, 3)))


def test_the_histogram_is_that_of_the_values(tmp_path: Path, inputs: Floats) -> None:
    seen = observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS).tensors["image"]
    wanted = np.histogram(inputs, bins=BINS, range=(-seen.largest, seen.largest))[0]
    assert np.abs(np.cumsum(seen.histogram) - np.cumsum(wanted)).max() <= 1  # a value on an edge may go either way


def test_relu_never_counts_below_zero(tmp_path: Path, inputs: Floats) -> None:
    seen = observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS).tensors["r"]
    assert seen.low == 0.0
    assert seen.histogram[: BINS // 2].sum() == 0


def test_little_memory_means_small_batches_and_the_same_ranges(tmp_path: Path, inputs: Floats) -> None:
    path = net(tmp_path / "net.onnx")
    one, other = (observe(path, samples(inputs), ENDS, memory_bytes=size) for size in (1, 1 << 30))
    for name, seen in one.tensors.items():
        assert (seen.low, seen.high) == pytest.approx((other.tensors[name].low, other.tensors[name].high), rel=1e-5)


def test_batches_are_as_large_as_memory_takes(tmp_path: Path, inputs: Floats) -> None:
    sizes: list[int] = []

    class Watched(Arrays, frozen=True):
        def batch(self, rows: np.ndarray) -> Floats:
            sizes.append(len(rows))
            return super().batch(rows)

    row_bytes = 4 * (108 + 180 + 180 + 5 + 5 + 4)
    observe(net(tmp_path / "net.onnx"), Watched(inputs, np.zeros(11)), ENDS, memory_bytes=4 * row_bytes)
    assert sizes == [1, 4, 4, 2] * 2


def test_a_model_with_a_fixed_batch_gets_whole_batches(tmp_path: Path, inputs: Floats) -> None:
    free = observe(net(tmp_path / "free.onnx"), samples(inputs), ENDS)
    fixed = observe(net(tmp_path / "fixed.onnx", batch=4), samples(inputs), ENDS)
    assert fixed.tensors["logits"].low == pytest.approx(free.tensors["logits"].low, rel=1e-5)
    assert fixed.rows == 11


def test_progress_ends_at_one(tmp_path: Path, inputs: Floats) -> None:
    told: list[float] = []
    observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS, advance=told.append, memory_bytes=1)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 22


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, inputs: Floats, bad: float) -> None:
    inputs[7, 1, 2, 3] = bad
    with pytest.raises(CompileError, match="Tensor 'image' takes values that are not finite"):
        observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS)


def test_a_tensor_inside_that_overflows_is_named(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", [node("Mul", ["image", "k"], "big"), node("Relu", ["big"], "logits")],
                 {"k": np.float32(3e38)}, ["n", 4])  # fmt: skip
    with pytest.raises(CompileError, match="Tensor 'big'"):
        observe(path, samples(np.full((2, 4), 10, np.float32)), ENDS)


def test_no_samples_and_no_such_input_are_refused(tmp_path: Path, inputs: Floats) -> None:
    with pytest.raises(CompileError, match="no calibration samples"):
        observe(net(tmp_path / "net.onnx"), samples(inputs[:0]), ENDS)
    with pytest.raises(CompileError, match="no input 'picture'; it has image"):
        observe(net(tmp_path / "net.onnx"), samples(inputs), Ends("picture", ("logits",)))


def test_observations_read_back_as_they_were_saved(tmp_path: Path, inputs: Floats) -> None:
    found = observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS)
    found.save(tmp_path / "seen.npz")
    again = Observations.load(tmp_path / "seen.npz")
    assert again.rows == found.rows
    assert list(again.tensors) == list(found.tensors)
    for name, seen in found.tensors.items():
        other = again.tensors[name]
        assert (other.low, other.high) == (seen.low, seen.high)
        assert np.array_equal(seen.histogram, other.histogram)
        if seen.channel_low is None:
            assert other.channel_low is None
        else:
            assert other.channel_low is not None
            assert np.array_equal(seen.channel_low, other.channel_low)


def test_the_same_observations_have_the_same_bytes(tmp_path: Path, inputs: Floats) -> None:
    found = observe(net(tmp_path / "net.onnx"), samples(inputs), ENDS)
    for name in ("a.npz", "b.npz"):
        found.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
