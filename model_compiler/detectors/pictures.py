"""Pictures that nobody took, for who has a detector and no pictures: soft, as the world is, and the same each time."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from contracts.manifest import Preprocess
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.preprocess import Preprocessor


def made_inputs(pre: Preprocess, count: int, *, raw: bool) -> Array:
    """Inputs of a model (count, ...), made of them as a node makes them. `raw`: it takes pixels.

    Noise would not do: of a thousand boxes that are all alike unsure the order is left to the last bits of a CPU, and
    with it what a graph's own suppression keeps.
    """
    preprocessor = Preprocessor(pre, raw=raw)
    return np.concatenate([preprocessor.normalise(_made(pre, number)) for number in range(count)])


def _made(pre: Preprocess, seed: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    channels = (1,) if pre.colour == "grey" else (3,)
    coarse = rng.integers(0, 256, (3 + seed % 6, 4 + seed % 7, *channels), np.uint8)
    soft = cv2.resize(coarse, (pre.width, pre.height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(soft.reshape(pre.height, pre.width, *(channels if channels == (3,) else ())), np.uint8)
