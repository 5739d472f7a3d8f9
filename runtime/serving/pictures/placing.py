"""From the model's own picture back into the one that was sent."""

from __future__ import annotations

import numpy as np

from contracts.manifest import Preprocess
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.preprocess import cropped, inside


def placed(boxes: Array, picture: Size, pre: Preprocess) -> Array:
    """`boxes` [n, 4] float32, left, top, right, bottom, in pixels of a `picture` that was made into the model's; within
    it."""
    left, top, across, down = _window(picture, pre)
    scale = np.array((across, down) * 2, np.float32)
    offset = np.array((left, top) * 2, np.float32)
    most = np.array((picture.width, picture.height) * 2, np.float32)
    return np.asarray(np.clip(boxes * scale + offset, 0, most), np.float32)


def _window(picture: Size, pre: Preprocess) -> tuple[float, float, float, float]:
    """Where in the picture the model's begins, and how many of its pixels one of the model's is, across and down."""
    if pre.resize == "letterbox":
        inner = inside(picture, pre)
        across, down = picture.width / inner.width, picture.height / inner.height
        return -((pre.width - inner.width) // 2) * across, -((pre.height - inner.height) // 2) * down, across, down
    left, top, kept = cropped(picture, pre) if pre.resize == "crop" else (0, 0, picture)
    return left, top, kept.width / pre.width, kept.height / pre.height
