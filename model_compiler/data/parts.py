"""The parts of one set of samples, each for its one use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model_compiler.data.samples import Numbers, Rows, Samples
from model_compiler.errors import CompileError


def split(samples: Samples, wanted: Mapping[str, float], *, seed: int) -> dict[str, Rows]:
    """Disjoint parts of `samples`, and `rest`; the same for the same seed.

    `wanted`: part to how many samples: a count from 1 up, or a share below 1. Where labels are whole numbers every part
    has nearly the same share of each. Raises CompileError when more is wanted than there is.
    """
    counts = {part: _count(len(samples), size) for part, size in wanted.items()}
    if sum(counts.values()) > len(samples):
        told = ", ".join(f"{part} {count}" for part, count in counts.items())
        raise CompileError(f"{len(samples)} samples cannot be split into {told}. Give more samples, or ask for fewer.")
    order = _mixed(samples, np.random.default_rng(seed))
    edges = np.cumsum(list(counts.values()))
    return {
        part: Rows(samples, np.sort(chosen))
        for part, chosen in zip((*counts, "rest"), np.split(order, edges), strict=True)
    }


def _count(total: int, size: float) -> int:
    return int(size) if size >= 1 else round(size * total)


def _mixed(samples: Samples, rng: np.random.Generator) -> Numbers:
    """Row numbers in an order of which every stretch has its share of every label, as far as rounding lets it."""
    order = rng.permutation(len(samples))
    labels = samples.labels
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return order
    places = np.empty(len(order))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels[order] == label)
        places[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.asarray(order[np.argsort(places, kind="stable")], np.int64)
