"""Of boxes that overlap the best one stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def suppressed(
    boxes: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], iou_threshold: float
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression within each group: the places of the boxes that stay, in their order.

    `boxes` [n, 4] left, top, right, bottom, the best first. One goes when its intersection over union with a box that
    stays exceeds `iou_threshold`.
    """
    areas = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    left = np.arange(len(boxes))
    keep: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        keep.append(int(best))
        edges = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        common = np.maximum(edges, 0).prod(axis=1)
        union = areas[best] + areas[left] - common
        overlaps = (common > iou_threshold * union) & (groups[left] == groups[best])
        left = left[~overlaps]
    return np.array(keep, np.intp)
