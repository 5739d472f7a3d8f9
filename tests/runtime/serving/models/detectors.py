"""Outputs of detectors that were never trained: boxes, scores and labels as each kind of head would tell them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import (
    Artifact,
    Detector,
    DetectorKind,
    File,
    Golden,
    Manifest,
    Postprocess,
    Preprocess,
    TensorSpec,
)

Array = npt.NDArray[Any]

SIDE, CLASSES = 128, 4
BOXES = np.array([[8, 16, 40, 48], [60, 60, 124, 100], [80, 4, 96, 36]], np.float32)
SCORES = np.array([0.7, 0.9, 0.5], np.float32)
LABELS = np.array([1, 3, 0])
STRIDES, REG_MAX = (8, 16), 10
NAMES = ("person", "bicycle", "car", "dog")

_HEADS: dict[str, tuple[DetectorKind, str, Detector]] = {
    "yolov8": ("yolo", "out", Detector(anchors_last=True)),
    "yolov8-rows": ("yolo", "out", Detector()),
    "yolov5": ("yolo", "out", Detector(objectness=True)),
    "yolo-sigmoid": ("yolo", "out", Detector(anchors_last=True, activation="sigmoid")),
    "ssd": (
        "ssd",
        "boxes",
        Detector(boxes=("boxes",), scores=("scores",), classes="classes", box="yxyx", normalised=True, first_class=1),
    ),
    "ssd-scores": (
        "ssd",
        "boxes",
        Detector(boxes=("boxes",), scores=("scores",), box="xyxy", first_class=1),
    ),
    "nanodet": (
        "nanodet",
        "scores-8",
        Detector(
            boxes=("boxes-8", "boxes-16"),
            scores=("scores-8", "scores-16"),
            strides=STRIDES,
            reg_max=REG_MAX,
            box="xyxy",
        ),
    ),
}


def manifest_of(kind: str, **changes: Any) -> Manifest:
    head, output, detector = _HEADS[kind]
    detector = msgspec.structs.replace(detector, **changes)
    outputs = tuple(TensorSpec(name, "FP32", (-1, *array.shape[1:])) for name, array in outputs_for(kind).items())
    return msgspec.structs.replace(
        plain_manifest(),
        task="detection",
        outputs=outputs,
        postprocess=Postprocess(output, head, detector),
        labels=NAMES,
        golden=Golden({"image": "in.npy"}, {"m.onnx": {outputs[0].name: "in.npy"}}, atol=1e-3, rtol=1e-3),
    )


def plain_manifest() -> Manifest:
    file = File("sha256:" + "a" * 64, 1)
    return Manifest(
        name="things",
        version="1",
        model="things",
        task="classification",
        tier="edge",
        files={"m.onnx": file, "in.npy": file},
        artifacts=(Artifact("m.onnx", "fp32", "onnxruntime", ("cpu-x86",)),),
        inputs=(TensorSpec("image", "FP32", (-1, 3, SIDE, SIDE)),),
        outputs=(TensorSpec("logits", "FP32", (-1, 4)),),
        postprocess=Postprocess("logits", "logits"),
        golden=Golden({"image": "in.npy"}, {"m.onnx": {"logits": "in.npy"}}, atol=1e-3, rtol=1e-3),
        preprocess=Preprocess(SIDE, SIDE, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3, "letterbox"),
    )


def outputs_for(kind: str, boxes: Array = BOXES, scores: Array = SCORES, labels: Array = LABELS) -> dict[str, Array]:
    """One row."""
    if kind == "nanodet":
        return _nanodet(boxes, scores, labels)
    if kind.startswith("ssd"):
        return _ssd(kind, boxes, scores, labels)
    return {"out": _yolo(kind, boxes, scores, labels)}


def _yolo(kind: str, boxes: Array, scores: Array, labels: Array) -> Array:
    first = 5 if kind == "yolov5" else 4
    values = np.zeros((20, first + CLASSES), np.float32)
    rows = np.arange(len(boxes)) * 3 + 1
    values[rows, :2], values[rows, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    values[rows, first + labels] = scores
    if kind == "yolov5":
        values[rows, first + labels], values[rows, 4] = np.sqrt(scores), np.sqrt(scores)
    if kind == "yolo-sigmoid":
        shares = np.clip(values[:, 4:], 1e-6, 1 - 1e-6)
        values[:, 4:] = np.log(shares / (1 - shares))
    return values[np.newaxis] if kind in ("yolov8-rows", "yolov5") else values.T[np.newaxis]


def _ssd(kind: str, boxes: Array, scores: Array, labels: Array) -> dict[str, Array]:
    if kind == "ssd":
        told = boxes[:, [1, 0, 3, 2]] / SIDE
        return {"boxes": told[None], "scores": scores[None], "classes": (labels + 1).astype(np.float32)[None]}
    each = np.zeros((len(boxes), CLASSES + 1), np.float32)
    each[:, 0] = 1.0  # the background
    each[np.arange(len(boxes)), labels + 1] = scores
    return {"boxes": boxes[None], "scores": each[None]}


def _nanodet(boxes: Array, scores: Array, labels: Array) -> dict[str, Array]:
    """Each box at the cell of its centre, on the grid whose distances reach its sides."""
    outputs: dict[str, Array] = {}
    for stride in STRIDES:
        cells = (SIDE // stride) ** 2
        outputs[f"scores-{stride}"] = np.zeros((1, cells, CLASSES), np.float32)
        outputs[f"boxes-{stride}"] = np.zeros((1, cells, 4 * (REG_MAX + 1)), np.float32)
    for box, score, label in zip(boxes, scores, labels, strict=True):
        stride = next(stride for stride in STRIDES if (box[2:] - box[:2]).max() / 2 + stride < REG_MAX * stride)
        column, row = ((box[:2] + box[2:]) / 2 // stride).astype(int)
        cell = int(row * (SIDE // stride) + column)
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        outputs[f"scores-{stride}"][0, cell, label] = score
        sides = np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / stride
        outputs[f"boxes-{stride}"][0, cell] = _distribution(sides).ravel()
    return outputs


def _distribution(sides: Array) -> Array:
    """Logits [4, REG_MAX + 1] whose softmax has these means: all weight on the two whole numbers around each."""
    low = np.floor(sides).astype(int)
    shares = np.full((4, REG_MAX + 1), 1e-9)
    shares[np.arange(4), low] = 1 - (sides - low)
    shares[np.arange(4), low + 1] += sides - low
    return np.asarray(np.log(shares), np.float32)
