"""Heads of detectors: from a run's outputs to what was found in each row, in pixels of the model's own picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.manifest import BoxFormat, Detector, Manifest, Postprocess, Preprocess
from runtime.serving.engines.tensors import Array
from runtime.serving.models.found import Found
from runtime.serving.models.nms import suppressed
from runtime.serving.pictures.picture import Size

Floats = npt.NDArray[np.float32]

_MOST_CANDIDATES = 1000
"""So many of the best are looked at: more of them overlap anyway."""


class Candidates(NamedTuple):
    """`boxes` [n, 4] as the graph gives them, `scores` [n], `labels` [n]; in no order."""

    boxes: Floats
    scores: Floats
    labels: npt.NDArray[np.int64]


def found_in(outputs: Mapping[str, Array], manifest: Manifest) -> tuple[Found, ...]:
    """What was found in each row, the best first."""
    assert manifest.preprocess is not None
    return found_by(manifest.postprocess, outputs, manifest.preprocess)


def found_by(post: Postprocess, outputs: Mapping[str, Array], pre: Preprocess) -> tuple[Found, ...]:
    """The same by a detector's head alone, for who has no manifest yet."""
    detector = post.detector
    assert detector is not None
    size, head = Size(pre.width, pre.height), _HEADS[post.kind]
    rows = len(outputs[post.output])
    return tuple(_kept(head(outputs, row, post.output, detector, size), detector, size) for row in range(rows))


def _kept(candidates: Candidates, detector: Detector, size: Size) -> Found:
    """The best, without those that overlap a better one."""
    things = np.flatnonzero(candidates.labels >= detector.first_class)
    order = things[np.argsort(-candidates.scores[things], kind="stable")[:_MOST_CANDIDATES]]
    scores, labels = candidates.scores[order], candidates.labels[order] - detector.first_class
    boxes = _corners(candidates.boxes[order], detector.box)
    if detector.normalised:
        boxes = boxes * np.array((size.width, size.height) * 2, np.float32)
    if detector.iou_threshold < 1:
        groups = np.zeros_like(labels) if detector.class_agnostic else labels
        keep = suppressed(boxes, groups, detector.iou_threshold, detector.max_objects)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
    most = detector.max_objects
    return Found(boxes[:most].astype(np.float32), scores[:most].astype(np.float32), labels[:most].astype(np.int32))


def _yolo(outputs: Mapping[str, Array], row: int, output: str, detector: Detector, size: Size) -> Candidates:
    """Redmon et al. 2016, arXiv:1506.02640; with objectness as YOLOv5 exports it, without as YOLOv8 does."""
    values = outputs[output][row] if detector.anchors_last else outputs[output][row].T
    first = 5 if detector.objectness else 4
    scores = values[first:].max(axis=0)
    threshold = _raw_threshold(detector)
    if detector.objectness:
        objectness = _activated(values[4], detector)
        sure = np.flatnonzero(_activated(scores, detector) * objectness >= detector.score_threshold)
        best = _activated(scores[sure], detector) * objectness[sure]
    else:
        sure = np.flatnonzero(scores >= threshold)
        best = _activated(scores[sure], detector)
    return Candidates(values[:4, sure].T, best, values[first:, sure].argmax(axis=0))


def _ssd(outputs: Mapping[str, Array], row: int, output: str, detector: Detector, size: Size) -> Candidates:
    """Liu et al. 2016, arXiv:1512.02325, behind the suppression that exports bring along, or before it."""
    boxes, scores = outputs[detector.boxes[0]][row], outputs[detector.scores[0]][row]
    if detector.classes:
        sure = np.flatnonzero(scores >= _raw_threshold(detector))
        labels = outputs[detector.classes][row][sure].astype(np.int64)
        return Candidates(boxes[sure], _activated(scores[sure], detector), labels)
    things = scores[:, detector.first_class :]
    sure = np.flatnonzero(things.max(axis=1) >= _raw_threshold(detector))
    best = things[sure]
    return Candidates(boxes[sure], _activated(best.max(axis=1), detector), best.argmax(axis=1) + detector.first_class)


def _nanodet(outputs: Mapping[str, Array], row: int, output: str, detector: Detector, size: Size) -> Candidates:
    levels = [
        _level(outputs[scores][row], outputs[boxes][row], stride, detector, size)
        for scores, boxes, stride in zip(detector.scores, detector.boxes, detector.strides, strict=True)
    ]
    return Candidates(*(np.concatenate(parts) for parts in zip(*levels, strict=True)))


def _level(scores: Floats, sides: Floats, stride: int, detector: Detector, size: Size) -> Candidates:
    """One grid of cells: boxes as `Detector.box` says, in pixels."""
    sure = np.flatnonzero(scores.max(axis=1) >= _raw_threshold(detector))
    best = scores[sure]
    shares = _softmax(sides[sure].reshape(len(sure), 4, detector.reg_max + 1))
    left, top, right, bottom = (shares @ np.arange(detector.reg_max + 1, dtype=np.float32)).T * stride
    across = -(-size.width // stride)
    x = (sure % across + detector.cell_offset) * stride
    y = (sure // across + detector.cell_offset) * stride
    corners = np.stack((x - left, y - top, x + right, y + bottom), axis=1).astype(np.float32)
    return Candidates(_as_format(corners, detector.box), _activated(best.max(axis=1), detector), best.argmax(axis=1))


_Head = Callable[[Mapping[str, Array], int, str, Detector, Size], Candidates]
_HEADS: dict[str, _Head] = {"yolo": _yolo, "ssd": _ssd, "nanodet": _nanodet}


def _raw_threshold(detector: Detector) -> float:
    """Of what the graph gives."""
    threshold = detector.score_threshold
    return float(np.log(threshold / (1.0 - threshold))) if detector.activation == "sigmoid" else threshold


def _activated(scores: Floats, detector: Detector) -> Floats:
    if detector.activation == "none":
        return scores
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-scores)), np.float32)


def _softmax(values: Floats) -> Floats:
    """Over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def _corners(boxes: Floats, box: BoxFormat) -> Floats:
    """Left, top, right, bottom."""
    if box == "xyxy":
        return boxes
    if box == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def _as_format(corners: Floats, box: BoxFormat) -> Floats:
    """The other way round."""
    if box == "xyxy":
        return corners
    if box == "yxyx":
        return corners[:, [1, 0, 3, 2]]
    first, last = corners[:, :2], corners[:, 2:]
    return np.concatenate(((first + last) / 2, last - first), axis=1)
