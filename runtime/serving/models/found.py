"""What a detector has found in one picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from runtime.serving.engines.tensors import Array


class Found(NamedTuple):
    """`boxes` [n, 4] float32: left, top, right, bottom; `scores` [n] float32, 0..1, falling; `labels` [n] int32 index
    the manifest's labels."""

    boxes: Array
    scores: Array
    labels: Array

    @classmethod
    def nothing(cls) -> Found:
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
