"""Packed bundles of small ONNX models, with golden files that hold, for tests that run real sessions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from contracts.manifest import (
    FILE,
    Artifact,
    ConfidenceRule,
    Detector,
    File,
    Golden,
    Isotonic,
    Manifest,
    Postprocess,
    Preprocess,
    Task,
    TensorSpec,
    digest_of,
    encode,
)
from contracts.strata import stratum_of

Array = npt.NDArray[Any]

MODEL_FILE = "fp32.onnx"
CLOUD_DIGEST = "sha256:" + "c" * 64
TARGET = "cpu-x86"
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}
NUMERIC = tuple(name for name in ONNX_TYPES if name not in ("BYTES", "BF16"))
_NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": np.float32,
}  # fmt: skip


def make_classifier(
    directory: Path,
    *,
    name: str = "digits-edge",
    version: str = "1",
    tier: Literal["edge", "cloud"] = "edge",
    seed: int = 0,
    bias: Sequence[float] | None = None,
    size: int = 8,
    colour: Literal["grey", "rgb"] = "grey",
    resize: Literal["stretch", "letterbox", "crop"] = "stretch",
    threshold: float = 0.5,
    max_batch: int = 8,
    **changes: Any,
) -> str:
    """A linear model from `[batch, channels, size, size]` to ten logits, for the model `digits`; returns its digest.

    `bias` makes an answer certain. Only edge bundles have a confidence rule. `changes` replace manifest fields.
    """
    rng = np.random.default_rng(seed)
    channels = 1 if colour == "grey" else 3
    weights = rng.normal(size=(channels * size * size, 10)).astype(np.float32)
    offset = np.array(bias if bias is not None else [0.0] * 10, dtype=np.float32)
    model = _model(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weights", "offset"], ["logits"]),
        ],
        [_value("image", "FP32", ("n", channels, size, size))],
        [_value("logits", "FP32", ("n", 10))],
        {"weights": weights, "offset": offset},
    )
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "tier": tier,
        "inputs": (TensorSpec("image", "FP32", (-1, channels, size, size)),),
        "outputs": (TensorSpec("logits", "FP32", (-1, 10)),),
        "postprocess": Postprocess("logits", "logits"),
        "preprocess": Preprocess(size, size, colour, 1 / 255, (0.5,) * channels, (0.5,) * channels, resize),
        "labels": tuple("0123456789"),
        "max_batch": max_batch,
    }
    images = rng.uniform(-1, 1, size=(3, channels, size, size)).astype(np.float32)
    return pack(
        directory,
        model,
        {"image": images},
        rule=_rule(model, threshold) if tier == "edge" else None,
        **{**fields, **changes},
    )


def make_detector(
    directory: Path, *, level: float = 0.55, untold: bool = False, isotonic: Isotonic | None = None, **changes: Any
) -> str:
    """The model `things`: finds bright upright blocks of 24 by 40 pixels in a picture of 320 by 240, as a YOLO tells.

    A filter of their size, of whose answers the local peaks stay. `level` is how bright they have to be, of 1. Where it
    is `untold`, nobody knows how many values an anchor has before it has run. `isotonic` gives it a confidence rule.
    """
    rows, columns = (240 - 40) // 8 + 1, (320 - 24) // 8 + 1
    cells = np.stack(np.meshgrid(np.arange(columns) * 8 + 12, np.arange(rows) * 8 + 20), axis=0).reshape(2, -1)
    boxes = np.concatenate([cells, np.full((1, cells.shape[1]), 24), np.full((1, cells.shape[1]), 40)])
    model = _model(
        [
            helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("AveragePool", ["grey"], ["bright"], kernel_shape=[40, 24], strides=[8, 8]),
            helper.make_node("MaxPool", ["bright"], ["peak"], kernel_shape=[7, 7], pads=[3, 3, 3, 3]),
            helper.make_node("Sub", ["peak", "bright"], ["below"]),
            helper.make_node("Mul", ["below", "sharply"], ["lost"]),
            helper.make_node("Sub", ["bright", "level"], ["above"]),
            helper.make_node("Sub", ["above", "lost"], ["left"]),
            helper.make_node("Mul", ["left", "steeply"], ["steep"]),
            helper.make_node("Sigmoid", ["steep"], ["sure"]),
            helper.make_node("Reshape", ["sure", "flat"], ["scores"]),
            helper.make_node("Mul", ["scores", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "boxes"], ["placed"]),
            helper.make_node("Concat", ["placed", "scores"], ["whole"], axis=1),
            *_as_is("whole", "out", untold),
        ],
        [_value("image", "FP32", ("n", 3, 240, 320))],
        [_value("out", "FP32", ("n", "values" if untold else 5, rows * columns))],
        {
            "five": np.array([5.0], np.float32),
            "first": np.array([0], np.int64),
            "values": np.array([1], np.int64),
            "sharply": np.array(1000.0, np.float32),
            "level": np.array(level, np.float32),
            "steeply": np.array(40.0, np.float32),
            "flat": np.array([-1, 1, rows * columns], np.int64),
            "nothing": np.array(0.0, np.float32),
            "boxes": boxes[np.newaxis].astype(np.float32),
        },
    )
    fields: dict[str, Any] = {
        "name": "things-edge",
        "version": "1",
        "model": "things",
        "task": "detection",
        "inputs": (TensorSpec("image", "FP32", (-1, 3, 240, 320)),),
        "outputs": (TensorSpec("out", "FP32", (-1, -1 if untold else 5, rows * columns)),),
        "postprocess": Postprocess("out", "yolo", Detector(anchors_last=True, score_threshold=0.5)),
        "preprocess": Preprocess(320, 240, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        "labels": ("block",),
    }
    images = np.random.default_rng(0).uniform(0, 1, size=(1, 3, 240, 320)).astype(np.float32)
    rule = _rule(model, 0.5, "detection", isotonic) if isotonic is not None else None
    return pack(directory, model, {"image": images}, rule=rule, **{**fields, **changes})


def _as_is(whole: str, out: str, untold: bool) -> list[NodeProto]:
    """Five of five values; where that is `untold`, by a count that only a run makes."""
    if not untold:
        return [helper.make_node("Identity", [whole], [out])]
    return [
        helper.make_node("ReduceMax", ["zeros"], ["none"], keepdims=0),
        helper.make_node("Add", ["none", "five"], ["count"]),
        helper.make_node("Cast", ["count"], ["end"], to=TensorProto.INT64),
        helper.make_node("Slice", [whole, "first", "end", "values"], [out]),
    ]


def make_echo(directory: Path, datatypes: Sequence[str] = NUMERIC, **changes: Any) -> str:
    """The model `echo`: every input `x_<type>` [batch, 2] comes back as `y_<type>`."""
    nodes = [helper.make_node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in datatypes]
    ins = [_value(f"x_{name}", name, ("n", 2)) for name in datatypes]
    outs = [_value(f"y_{name}", name, ("n", 2)) for name in datatypes]
    fields: dict[str, Any] = {
        "name": "echo-edge",
        "version": "1",
        "model": "echo",
        "task": "embedding",
        "inputs": tuple(TensorSpec(f"x_{name}", name, (-1, 2)) for name in datatypes),
        "outputs": tuple(TensorSpec(f"y_{name}", name, (-1, 2)) for name in datatypes),
        "postprocess": Postprocess(f"y_{datatypes[0]}", "vector"),
    }
    golden = {
        f"x_{name}": np.array([["a", "b"]]) if name == "BYTES" else np.array([[0, 1]], dtype=_NUMPY[name])
        for name in datatypes
    }
    echoed = {f"y_{name}": golden[f"x_{name}"] for name in datatypes}
    return pack(directory, _model(nodes, ins, outs, {}), golden, echoed, **{**fields, **changes})


def make_lookup(directory: Path, *, classes: int = 4, ruled: bool = False, **changes: Any) -> str:
    """The model `lookup`: row `index` of a table. An index out of range makes the engine fail.

    It tells its confidence where it is `ruled`.
    """
    table = np.eye(classes, dtype=np.float32) * 10
    model = _model(
        [helper.make_node("Gather", ["table", "index"], ["rows"]), helper.make_node("Flatten", ["rows"], ["logits"])],
        [_value("index", "INT64", ("n", 1))],
        [_value("logits", "FP32", ("n", classes))],
        {"table": table},
    )
    fields: dict[str, Any] = {
        "name": "lookup-edge",
        "version": "1",
        "model": "lookup",
        "inputs": (TensorSpec("index", "INT64", (-1, 1)),),
        "outputs": (TensorSpec("logits", "FP32", (-1, classes)),),
        "postprocess": Postprocess("logits", "logits"),
        "labels": tuple("abcdefgh"[:classes]),
    }
    rule = _rule(model, 0.0) if ruled else None
    return pack(directory, model, {"index": np.array([[0], [1]])}, rule=rule, **{**fields, **changes})


def make_convolutions(directory: Path) -> str:
    """The model `convolutions`: from `[batch, 3, 32, 32]` to vectors of 512. Its file has more than a megabyte."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(size=(64, 3, 3, 3)).astype(np.float32) / 5,
        "w2": rng.normal(size=(64, 1, 3, 3)).astype(np.float32) / 3,
        "w3": rng.normal(size=(512, 64, 3, 3)).astype(np.float32) / 24,
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], group=64, pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["e"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["vector"]),
    ]
    shape = ("n", 3, 32, 32)
    model = _model(nodes, [_value("image", "FP32", shape)], [_value("vector", "FP32", ("n", 512))], weights)
    return pack(
        directory,
        model,
        {"image": rng.normal(size=(2, 3, 32, 32)).astype(np.float32)},
        name="convolutions-edge",
        version="1",
        model="convolutions",
        task="embedding",
        inputs=(TensorSpec("image", "FP32", (-1, 3, 32, 32)),),
        outputs=(TensorSpec("vector", "FP32", (-1, 512)),),
        postprocess=Postprocess("vector", "vector"),
        max_batch=8,
    )


def _rule(
    model: bytes, threshold: float, task: Task = "classification", isotonic: Isotonic | None = None
) -> ConfidenceRule:
    return ConfidenceRule(
        temperature=1.0,
        threshold=threshold,
        epsilon=0.05,
        delta=0.05,
        n=100,
        feasible=True,
        stratum=stratum_of(digest_of(model), CLOUD_DIGEST, task),
        cloud_digest=CLOUD_DIGEST,
        isotonic=isotonic,
    )


def pack(
    directory: Path,
    onnx: bytes,
    golden_inputs: Mapping[str, Array],
    golden_outputs: Mapping[str, Array] | None = None,
    *,
    rule: ConfidenceRule | None = None,
    golden_error: float = 0.0,
    golden_scale: float = 1.0,
    golden_atol: float = 1e-4,
    artifacts: tuple[Artifact, ...] | None = None,
    **fields: Any,
) -> str:
    """Writes a packed bundle directory, unless told with golden outputs as ONNX Runtime gives them; returns its digest.

    Golden outputs are falsified by `golden_scale` and `golden_error`.
    """
    outputs = _run(onnx, golden_inputs) if golden_outputs is None else golden_outputs
    contents = {MODEL_FILE: onnx}
    for name, array in golden_inputs.items():
        contents[f"golden/inputs/{name}.npy"] = _npy(array)
    for name, array in outputs.items():
        altered = golden_error or golden_scale != 1
        shifted = array * np.float32(golden_scale) + np.float32(golden_error) if altered else array
        contents[f"golden/{MODEL_FILE}/{name}.npy"] = _npy(shifted)
    described = {
        "model": "digits",
        "task": "classification",
        "tier": "edge",
        "files": {name: File(digest_of(data), len(data)) for name, data in contents.items()},
        "artifacts": artifacts or (Artifact(MODEL_FILE, "fp32", "onnxruntime", ("cpu-x86", "cpu-arm"), rule),),
        "golden": Golden(
            {name: f"golden/inputs/{name}.npy" for name in golden_inputs},
            {MODEL_FILE: {name: f"golden/{MODEL_FILE}/{name}.npy" for name in outputs}},
            atol=golden_atol,
            rtol=1e-4,
        ),
        **fields,
    }
    manifest = encode(Manifest(**described))
    for name, data in {**contents, FILE: manifest}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return digest_of(manifest)


def change_manifest(directory: Path, **fields: Any) -> str:
    """Replaces fields of a packed manifest; returns the new digest."""
    manifest = msgspec.json.decode((directory / FILE).read_bytes(), type=Manifest)
    data = encode(msgspec.structs.replace(manifest, **fields))
    (directory / FILE).write_bytes(data)
    return digest_of(data)


def _model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, Array],
) -> bytes:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = made.SerializeToString()
    return data


def _value(name: str, datatype: str, shape: Sequence[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def _run(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.astype("U") if array.dtype == object else array, allow_pickle=False)
    return buffer.getvalue()
