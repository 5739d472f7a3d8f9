"""Samples that a user's own code gives: taken when they are what they should be, else refused with what they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from model_compiler.data.samples import Arrays, Floats, Labels, Numbers, Samples
from model_compiler.errors import CompileError
from model_compiler.imports import called

_PARTS = ("batch", "labels", "digest", "__len__")


def taken(loaded: object, name: str) -> Samples:
    """What a loader called `name` gave: a pair of arrays (inputs, labels), or Samples of the user's own.

    Raises CompileError for anything else, now or, for batches that come later, then.
    """
    if isinstance(loaded, tuple | list) and len(loaded) == 2:
        loaded = _arrays(loaded[0], loaded[1], name)
    if not all(hasattr(loaded, part) for part in _PARTS):
        raise CompileError(
            f"{name} gave {type(loaded).__name__}. Return a pair of arrays (inputs, labels), or Samples."
        )
    samples: Samples = loaded  # type: ignore[assignment]
    return Checked(samples, name)


class Checked:
    """`samples`, of which every batch is looked at before it is used."""

    def __init__(self, samples: Samples, name: str) -> None:
        self._samples, self._name = samples, name
        self.labels = _labels(samples, name)
        if not len(self.labels):
            raise CompileError(f"{name} gave no samples. Give at least one, or leave the part out.")
        self._shape = self._asked(np.zeros(1, np.int64)).shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Numbers) -> Floats:
        """Raises CompileError for what is no finite float32 array of these rows, each shaped like the first."""
        inputs = self._asked(rows)
        if inputs.shape[1:] != self._shape:
            raise CompileError(
                f"{self._name} gives rows of shape {list(inputs.shape[1:])}, and the first of shape "
                f"{list(self._shape)}. Give all of one shape."
            )
        return inputs

    def digest(self) -> str:
        return str(called(f"{self._name}: digest()", self._samples.digest))

    def _asked(self, rows: Numbers) -> Floats:
        inputs = called(f"{self._name}: batch()", self._samples.batch, rows)
        if not isinstance(inputs, np.ndarray) or inputs.dtype != np.float32:
            kind = inputs.dtype if isinstance(inputs, np.ndarray) else type(inputs).__name__
            raise CompileError(f"{self._name} gives inputs as {kind}. Return them with .astype(numpy.float32).")
        if inputs.shape[:1] != (len(rows),):
            raise CompileError(f"{self._name} gives {list(inputs.shape)} for {len(rows)} rows. Give one input a row.")
        broken = np.flatnonzero(~np.isfinite(inputs).reshape(len(rows), -1).all(axis=1))
        if len(broken):
            raise CompileError(
                f"{self._name} gives NaN or infinity in row {rows[broken[0]]}. Mend that row, or leave it out."
            )
        return inputs


def _arrays(inputs: Any, labels: Any, name: str) -> Arrays:
    try:
        arrays = Arrays(np.asarray(inputs), np.asarray(labels))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CompileError(f"{name} gave what becomes no array: {error}. Return NumPy arrays.") from error
    if arrays.inputs.ndim < 1 or arrays.labels.ndim < 1 or len(arrays.inputs) != len(arrays.labels):
        shapes = f"{list(arrays.inputs.shape)} and labels of shape {list(arrays.labels.shape)}"
        raise CompileError(f"{name} gave inputs of shape {shapes}. Give as many labels as inputs.")
    return arrays


def _labels(samples: Samples, name: str) -> Labels:
    """As they are; whole numbers as int64."""
    labels = np.asarray(samples.labels)
    if labels.ndim < 1 or len(labels) != len(samples):
        raise CompileError(f"{name} has {len(samples)} samples and labels of shape {list(labels.shape)}: not as many.")
    if labels.dtype == object:
        raise CompileError(f"{name} gives labels that are no numbers. Return them as one NumPy array of numbers.")
    return labels.astype(np.int64) if labels.dtype.kind in "iub" else labels
