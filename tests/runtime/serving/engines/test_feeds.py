"""Feeding a real session through page-locked buffers gives what feeding it plainly gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from contracts.errors import FoothillError
from runtime.serving.engines.cuda import Cuda, CudaError
from runtime.serving.engines.feeds import PinnedFeed, PlainFeed, feed_for
from runtime.serving.engines.pinned import Pinned
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import MODEL_FILE, TARGET, make_echo
from tests.runtime.serving.fake_cuda import OUT_OF_MEMORY, FakeLibcuda

TYPES = ("FP32", "INT64", "BOOL", "FP16")


@pytest.fixture
def gpu() -> FakeLibcuda:
    return FakeLibcuda()


@pytest.fixture
def session(tmp_path: Path) -> Any:
    make_echo(tmp_path, TYPES)
    return ort.InferenceSession(tmp_path / MODEL_FILE, providers=["CPUExecutionProvider"])


@pytest.fixture
def pinned_feed(session: Any, gpu: FakeLibcuda) -> PinnedFeed:
    return PinnedFeed(session, Pinned(Cuda(gpu)))


def inputs(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "x_FP32": rng.normal(size=(rows, 2)).astype(np.float32),
        "x_INT64": rng.integers(-9, 9, (rows, 2)),
        "x_BOOL": rng.integers(0, 2, (rows, 2)).astype(bool),
        "x_FP16": rng.normal(size=(rows, 2)).astype(np.float16),
    }


def test_every_type_and_batch_comes_back_and_outlives_the_next_run(session: Any, pinned_feed: PinnedFeed) -> None:
    names = [f"y_{name}" for name in TYPES]
    plain = PlainFeed(session)
    asked = [inputs(rows, seed) for seed, rows in enumerate((3, 1, 8, 2))]
    answers = [pinned_feed.run(names, feeds, ort.RunOptions()) for feeds in asked]
    for feeds, answer in zip(asked, answers, strict=True):
        for got, expected in zip(answer, plain.run(names, feeds, ort.RunOptions()), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_buffers_grow_to_the_largest_batch_stay_and_are_given_back(pinned_feed: PinnedFeed, gpu: FakeLibcuda) -> None:
    names = [f"y_{name}" for name in TYPES]
    pinned_feed.run(names, inputs(8, 0), ort.RunOptions())
    largest = dict(gpu.locked)
    assert sorted(len(block) for block in largest.values()) == [16, 32, 64, 128]
    pinned_feed.run(names, inputs(3, 1), ort.RunOptions())
    assert gpu.locked == largest
    pinned_feed.close()
    assert (gpu.locked, gpu.contexts, gpu.streams) == ({}, 0, 0)


def test_a_buffer_that_cannot_be_locked_is_an_error_and_nothing_is_lost(gpu: FakeLibcuda) -> None:
    pinned = Pinned(Cuda(gpu))
    gpu.fails["cuMemAllocHost_v2"] = OUT_OF_MEMORY
    with pytest.raises(CudaError, match="cuMemAllocHost_v2 failed with error 2"):
        pinned.array("x", (2, 2), np.dtype(np.float32))
    gpu.fails.clear()
    assert pinned.copy("x", np.ones((0, 2), np.float32)).shape == (0, 2)
    pinned.close()
    assert gpu.locked == {}


class OnGpu:
    """A session as ONNX Runtime shows one on a GPU."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_bfloat16_goes_in_rounded_and_comes_out_as_it_was_computed() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["plain"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["plain", "factor"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.BFLOAT16),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n", 2]) for name in "xy"]
    plain = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("factor", "product")]
    graph = helper.make_graph(nodes, "product", [ends[0], plain[0]], [ends[1], plain[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feed = feed_for(ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), unlocked)
    x, factor = np.array([[0.1, 3.0], [-7.7, 1e30]], np.float32), np.full((2, 2), 1.01, np.float32)
    y, product = feed.run(["y", "product"], {"x": x, "factor": factor}, ort.RunOptions())
    held = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(product, held * factor)
    np.testing.assert_array_equal(y, product.astype(ml_dtypes.bfloat16).astype(np.float32))
    no_rows = {"x": x[:0], "factor": factor[:0]}
    assert [one.shape for one in feed.run(["y", "product"], no_rows, ort.RunOptions())] == [(0, 2), (0, 2)]
    feed.close()


def test_text_and_bfloat16_do_not_go_in_together(tmp_path: Path) -> None:
    digest = make_echo(tmp_path, ("BF16", "BYTES"))
    with pytest.raises(FoothillError, match="Text and BF16 are not served together") as refused:
        LoadedModel.open(tmp_path, digest, target=TARGET, threads=1)
    assert refused.value.code == "bad_bundle"


def unlocked() -> Pinned:
    raise AssertionError("no buffers are locked for a CPU")


def test_buffers_are_locked_for_numbers_on_a_gpu_alone(session: Any, tmp_path: Path, gpu: FakeLibcuda) -> None:
    make_echo(tmp_path / "text", ("FP32", "BYTES"))
    text = ort.InferenceSession(tmp_path / "text" / MODEL_FILE, providers=["CPUExecutionProvider"])

    def kind(asked: Any) -> type:
        return type(feed_for(asked, lambda: Pinned(Cuda(gpu))))

    assert (kind(session), kind(OnGpu(session)), kind(OnGpu(text))) == (PlainFeed, PinnedFeed, PlainFeed)
