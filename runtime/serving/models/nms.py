"""Of boxes that overlap the best one stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BLOCK = 64
"""So many boxes are held against each other at once: their overlaps fit into one machine word a box."""


def suppressed(
    boxes: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], iou_threshold: float, most: int | None = None
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression within each group: the places of the boxes that stay, in their order, at most so
    many as `most`.

    `boxes` [n, 4] left, top, right, bottom, the best first. One goes when its intersection over union with a box that
    stays exceeds `iou_threshold`.
    """
    most = len(boxes) if most is None else most
    keep = np.empty(0, np.intp)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        block = block[~_overlaps(boxes, groups, block, keep, iou_threshold).any(axis=1)]
        keep = np.concatenate((keep, block[_greedy(_overlaps(boxes, groups, block, block, iou_threshold))]))
        if len(keep) >= most:
            break
    return keep[:most]


def _greedy(overlaps: npt.NDArray[np.bool_]) -> list[int]:
    """Which of at most 64 boxes stay, the best first; [n, n] which of them overlap."""
    packed = np.packbits(overlaps, axis=1, bitorder="little")
    rows = [int.from_bytes(row.tobytes(), "little") for row in packed]
    keep, gone = [], 0
    for at, row in enumerate(rows):
        if not gone >> at & 1:
            keep.append(at)
            gone |= row
    return keep


def _overlaps(
    boxes: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
    some: npt.NDArray[np.intp],
    others: npt.NDArray[np.intp],
    iou_threshold: float,
) -> npt.NDArray[np.bool_]:
    """[some, others] whether they are of one group and overlap by more."""
    one, other = boxes[some][:, np.newaxis], boxes[others][np.newaxis]
    across = np.minimum(one[..., 2], other[..., 2]) - np.maximum(one[..., 0], other[..., 0])
    down = np.minimum(one[..., 3], other[..., 3]) - np.maximum(one[..., 1], other[..., 1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    union = _areas(one) + _areas(other) - common
    alike = groups[some][:, np.newaxis] == groups[others][np.newaxis]
    return np.asarray(alike & (common > iou_threshold * union), np.bool_)


def _areas(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float32)
