"""Labelled inputs as every stage takes them, and pictures made into such inputs."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import Preprocess
from model_compiler.errors import CompileError

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Pictures = npt.NDArray[np.uint8]


class Samples(msgspec.Struct, frozen=True):
    """`inputs`: (n, channels, height, width) float32 as the model takes them; `labels`: (n,) int64."""

    inputs: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


class Data(msgspec.Struct, frozen=True):
    """The samples of one compilation, by the one use that each may have.

    `train` fits weights, `ranges` the int8 activation ranges, `fit` the temperature, `threshold` the escalation
    threshold (independent draws, seen by nothing before), `test` the measurements.
    """

    train: Samples
    ranges: Samples
    fit: Samples
    threshold: Samples
    test: Samples


def to_samples(pictures: Pictures, labels: Labels, preprocess: Preprocess) -> Samples:
    """Grey pictures (n, height, width), already of the model's size, as (n, 1, height, width) float32."""
    if pictures.shape[1:] != (preprocess.height, preprocess.width) or preprocess.colour != "grey":
        raise CompileError(
            f"Pictures of shape {pictures.shape} do not fit the preprocessing: it wants grey ones of "
            f"{preprocess.width}x{preprocess.height}. Resize them first."
        )
    scaled = pictures.astype(np.float32) * np.float32(preprocess.scale)
    return Samples(((scaled - np.float32(preprocess.mean[0])) / np.float32(preprocess.std[0]))[:, None], labels)
