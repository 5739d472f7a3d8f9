"""Labelled inputs as every stage takes them, batch by batch: arrays, or pictures that need not fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import Preprocess
from runtime.serving.pictures.preprocess import Preprocessor

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]
Pictures = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


class Samples(Protocol):
    """`labels`: (n,) int64 for a classifier, -1 where unknown; (n, ...) of any kind for a metric of one's own."""

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def batch(self, rows: Numbers) -> Floats:
        """The inputs (len(rows), ...) float32 as the model takes them."""
        ...

    def digest(self) -> str:
        """Hex SHA-256 of inputs and labels: equal for equal samples in any process."""
        ...


class Arrays(msgspec.Struct, frozen=True):
    """Samples in memory. `inputs`: (n, ...) float32; `labels`: (n, ...)."""

    inputs: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Numbers) -> Floats:
        return self.inputs[rows]

    def digest(self) -> str:
        return _digest(self.inputs, self.labels)


class PictureSamples:
    """Samples kept as decoded pictures of the model's size, normalised when a batch is asked for.

    `pictures`: (n, height, width) for grey or (n, height, width, 3), uint8; may be a memory map.
    """

    def __init__(self, pictures: Pictures, labels: Labels, preprocess: Preprocess) -> None:
        self.pictures, self.labels, self.preprocess = pictures, labels, preprocess
        self._tables = Preprocessor(preprocess).tables

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Numbers) -> Floats:
        """The same numbers, bit for bit, as a node makes of the same pictures."""
        chosen = self.pictures[rows]
        planes = chosen[:, None] if chosen.ndim == 3 else chosen.transpose(0, 3, 1, 2)
        tensor = np.empty(planes.shape, np.float32)
        for channel, table in enumerate(self._tables):
            np.take(table, planes[:, channel], out=tensor[:, channel])
        return tensor

    def digest(self) -> str:
        return _digest(self.pictures, self.labels, np.frombuffer(repr(self.preprocess).encode(), np.uint8))


class Rows(msgspec.Struct, frozen=True):
    """A part of other samples: the rows `chosen`, in that order."""

    samples: Samples
    chosen: Numbers

    @property
    def labels(self) -> Labels:
        labels: Labels = self.samples.labels[self.chosen]
        return labels

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, rows: Numbers) -> Floats:
        return self.samples.batch(self.chosen[rows])

    def digest(self) -> str:
        return hashlib.sha256(self.samples.digest().encode() + self.chosen.tobytes()).hexdigest()


class Relabelled(msgspec.Struct, frozen=True):
    """The inputs of other samples under labels of one's own (n, ...)."""

    samples: Samples
    labels: Labels

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, rows: Numbers) -> Floats:
        return self.samples.batch(rows)

    def digest(self) -> str:
        return hashlib.sha256(f"{self.samples.digest()}{_digest(self.labels)}".encode()).hexdigest()


class Data(msgspec.Struct, frozen=True):
    """The samples of one compilation, by the one use that each may have.

    `train` fits weights, `ranges` the quantizers' ranges, `validation` chooses among candidates, `fit` fits the
    confidence maps, `threshold` the escalation threshold (independent draws, seen by nothing before), `test` measures.
    """

    train: Samples
    ranges: Samples
    validation: Samples
    fit: Samples
    threshold: Samples
    test: Samples

    @property
    def some(self) -> Samples:
        """Real inputs to try a model on: of `fit`, which neither trains nor measures, else whatever there is."""
        parts = (self.fit, self.validation, self.ranges, self.train, self.threshold)
        return next((part for part in parts if len(part)), self.test)


def batches(samples: Samples, size: int) -> Iterator[Floats]:
    """All inputs in order, at most `size` rows at a time."""
    for start in range(0, len(samples), size):
        yield samples.batch(np.arange(start, min(start + size, len(samples))))


def first(samples: Samples, count: int) -> Floats:
    """The inputs of the first `count` samples, or of all where there are fewer."""
    return samples.batch(np.arange(min(count, len(samples))))


def to_samples(pictures: Pictures, labels: Labels, preprocess: Preprocess) -> Arrays:
    """Decoded pictures, uint8 (n, height, width(, 3)), made into inputs by the code that makes them on a node."""
    preprocessor = Preprocessor(preprocess)
    return Arrays(np.concatenate([preprocessor.normalise(preprocessor.resize(each)) for each in pictures]), labels)


def _digest(*arrays: npt.NDArray[Any]) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str}{array.shape}".encode())
        for start in range(0, len(array), 256):
            sha256.update(np.ascontiguousarray(array[start : start + 256]).data)
    return sha256.hexdigest()
