"""The models that are served: packed bundles, each with the body of a request for it."""

from __future__ import annotations

import os
import timeit
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from contracts.boards import BOARDS
from contracts.manifest import (
    Artifact,
    ConfidenceRule,
    Golden,
    Manifest,
    Postprocess,
    Preprocess,
    TensorSpec,
    digest_of,
)
from contracts.oip import HEADER_LENGTH
from contracts.strata import stratum_of
from foothill.client.tensors import encode_request
from foothill.demo.samples import digit_samples
from model_compiler import pack
from model_compiler.digits.recipe import EDGE, compile_quick
from model_compiler.pack import Packed

Floats = npt.NDArray[np.float32]

ASSETS = "FOOTHILL_ASSETS"
_FILE = "fp32.onnx"
_TINY_US, _TINY_TRIES = 59.0, 5
_NO_CLOUD = "sha256:" + "0" * 64
_CPUS = tuple(target for target, board in BOARDS.items() if board.family == "cpu")
_PICTURE = (3, 224, 224)

# Sandler et al. 2018, arXiv:1801.04381, table 2: expansion, channels, repeats, stride of the first.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Body(NamedTuple):
    """What a request carries, and where it goes."""

    path: str
    headers: dict[str, str]
    content: bytes


class Served(NamedTuple):
    """A packed bundle, the tensor that raw ONNX Runtime gets, and the same tensor as a request."""

    packed: Packed
    tensor: Floats
    infer: Body


def digits(directory: Path) -> Served:
    """The digits student, int8, after little training: a tiny model, of some 50 µs a call.

    `directory` holds the compiled bundles afterwards, if it did not before.
    """
    if not (directory / EDGE).exists():
        compile_quick(directory)
    sample = digit_samples(1, seed=1)[0]
    return _served(pack.read(directory / EDGE), np.frombuffer(sample.tensor, "<f4").reshape(sample.shape))


def digits_png() -> Body:
    """One camera frame of a digit, for the predict route."""
    return Body("/v1/predict/digits", {"Content-Type": "image/png"}, digit_samples(1, seed=1)[0].png)


def tiny(work: Path) -> Served:
    """A residual network of small convolutions with random weights, as many as take 59 µs a call on this machine, of
    which starting its operators takes most, so that a row of a batch of 8 takes a fourth of it."""
    blocks = 12
    for _ in range(_TINY_TRIES):
        took_us = _call_us(_residual(blocks))
        if abs(took_us - _TINY_US) < 0.05 * _TINY_US:
            break
        blocks = min(max(1, round(blocks * _TINY_US / took_us)), 64)
    return _classifier(work / "tiny", "tiny", _residual(blocks), (1, 28, 28))


def _residual(blocks: int) -> bytes:
    return _Net(np.random.default_rng(0)).residual(blocks, 8)


def _call_us(onnx: bytes) -> float:
    """Of one image, in one thread: the least of many calls, since all that disturbs one only adds to it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    call = partial(session.run, None, {"image": np.zeros((1, 1, 28, 28), np.float32)})
    return min(timeit.repeat(call, number=10, repeat=300)) / 10 * 1e6


def mobilenet(work: Path, *, width: float = 1.0) -> Served:
    """A network of MobileNetV2's shape at 224 px with random weights; `width` scales its channels."""
    net = _Net(np.random.default_rng(0))
    return _classifier(work / "mobilenet", "mobilenet", net.mobilenet(width), _PICTURE)


def efficientnet(work: Path) -> Served | None:
    """EfficientNet-lite0 out of the assets folder, where there is one."""
    folder = os.environ.get(ASSETS)
    if not folder:
        return None
    onnx = Path(folder, "models/efficientnet_lite0.onnx").read_bytes()
    return _classifier(work / "efficientnet", "efficientnet", onnx, _PICTURE)


def _classifier(directory: Path, model: str, onnx: bytes, row: tuple[int, ...]) -> Served:
    """Packs a classifier of inputs of shape `row`. Its confidence rule keeps every answer at the edge."""
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    image, logits = session.get_inputs()[0].name, session.get_outputs()[0].name
    tensor = np.random.default_rng(1).standard_normal((1, *row), np.float32)
    answer = session.run([logits], {image: tensor})[0]
    contents = {_FILE: onnx, "golden/in.npy": pack.npy(tensor), "golden/out.npy": pack.npy(answer)}
    stratum = stratum_of(digest_of(onnx), _NO_CLOUD, "classification")
    rule = ConfidenceRule(1.0, 0.0, 0.5, 0.5, 1, feasible=True, stratum=stratum, cloud_digest=_NO_CLOUD)
    manifest = Manifest(
        name=f"{model}-edge",
        version="1",
        model=model,
        task="classification",
        tier="edge",
        files=pack.files_of(contents),
        artifacts=(Artifact(_FILE, "fp32", "onnxruntime", _CPUS, rule),),
        inputs=(TensorSpec(image, "FP32", (-1, *row)),),
        outputs=(TensorSpec(logits, "FP32", (-1, answer.shape[1])),),
        postprocess=Postprocess(logits, "logits"),
        preprocess=Preprocess(224, 224, "rgb", 1 / 255, (0.5,) * 3, (0.25,) * 3) if row == _PICTURE else None,
        golden=Golden({image: "golden/in.npy"}, {_FILE: {logits: "golden/out.npy"}}, atol=1e-2, rtol=1e-2),
    )
    return _served(pack.pack(directory, manifest, contents), tensor)


def _served(packed: Packed, tensor: Floats) -> Served:
    content, json_bytes = encode_request({packed.manifest.inputs[0].name: tensor}, ())
    sent = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(json_bytes)}
    return Served(packed, tensor, Body(f"/v2/models/{packed.manifest.model}/infer", sent, bytes(content)))


class _Net:
    """An ONNX graph in the making: each method adds nodes behind the tensor it is given and returns the new one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []

    def mobilenet(self, width: float) -> bytes:
        """Batch norms are folded into the convolutions, as every export does."""
        self._weights += [self._constant("zero", 0.0), self._constant("six", 6.0)]
        channels = _scaled(32, width)
        end = self._clip(self._conv("image", 3, channels, kernel=3, stride=2))
        for expansion, base, repeats, stride in _BLOCKS:
            for number in range(repeats):
                end, channels = self._block(end, channels, _scaled(base, width), expansion, 1 if number else stride)
        end = self._clip(self._conv(end, channels, 1280, kernel=1))
        end = self._node("GlobalAveragePool", [end])
        end = self._node("Flatten", [end], axis=1)
        end = self._dense(end, 1280, 1000)
        return self._model("mobilenet", _PICTURE, end, 1000)

    def residual(self, blocks: int, channels: int) -> bytes:
        """He et al. 2015, arXiv:1512.03385, figure 2, behind four convolutions with stride 2; ends in 10 logits."""
        end, before = "image", 1
        for _ in range(4):
            end = self._node("Relu", [self._conv(end, before, channels, kernel=3, stride=2)])
            before = channels
        for _ in range(blocks):
            inner = self._node("Relu", [self._conv(end, channels, channels, kernel=3)])
            end = self._node("Relu", [self._node("Add", [end, self._conv(inner, channels, channels, kernel=3)])])
        end = self._node("Flatten", [self._node("GlobalAveragePool", [end])], axis=1)
        return self._model("residual", (1, 28, 28), self._dense(end, channels, 10), 10)

    def _dense(self, start: str, fan_in: int, out: int) -> str:
        return self._node("Gemm", [start, self._random((fan_in, out), fan_in), self._random((out,), out)])

    def _block(self, start: str, channels: int, out: int, expansion: int, stride: int) -> tuple[str, int]:
        """Expand, convolve each channel, project; around it a shortcut where shapes allow."""
        inner = channels * expansion
        end = self._clip(self._conv(start, channels, inner, kernel=1)) if expansion != 1 else start
        end = self._clip(self._conv(end, inner, inner, kernel=3, stride=stride, group=inner))
        end = self._conv(end, inner, out, kernel=1)
        return (self._node("Add", [start, end]) if stride == 1 and channels == out else end), out

    def _conv(self, start: str, channels: int, out: int, *, kernel: int, stride: int = 1, group: int = 1) -> str:
        fan_in = channels // group * kernel * kernel
        weights = self._random((out, channels // group, kernel, kernel), fan_in)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
        return self._node("Conv", [start, weights, self._random((out,), out)], **shape)

    def _clip(self, start: str) -> str:
        return self._node("Clip", [start, "zero", "six"])

    def _node(self, kind: str, inputs: Sequence[str], **attributes: object) -> str:
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _random(self, shape: tuple[int, ...], fan_in: int) -> str:
        """Weights that keep the spread of what flows through (He et al. 2015, arXiv:1502.01852)."""
        name = f"weights{len(self._weights)}"
        values = self._rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2.0 / fan_in))
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def _constant(self, name: str, value: float) -> TensorProto:
        tensor: TensorProto = numpy_helper.from_array(np.array(value, np.float32), name)
        return tensor

    def _model(self, name: str, row: tuple[int, ...], end: str, classes: int) -> bytes:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *row])
        logits = helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", classes])
        graph = helper.make_graph(self._nodes, name, [image], [logits], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data: bytes = model.SerializeToString()
        return data


def _scaled(channels: int, width: float) -> int:
    """To a multiple of eight."""
    return max(8, int(channels * width + 4) // 8 * 8)
