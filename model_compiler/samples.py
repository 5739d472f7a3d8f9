"""Labelled inputs as every stage takes them, and pictures made into such inputs."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import Preprocess
from runtime.serving.preprocess import Preprocessor

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
    """Decoded pictures, uint8 (n, height, width(, 3)), made into inputs by the code that makes them on a node."""
    preprocessor = Preprocessor(preprocess)
    return Samples(np.concatenate([preprocessor.normalise(preprocessor.resize(each)) for each in pictures]), labels)
