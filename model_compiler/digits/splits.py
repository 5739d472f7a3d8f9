"""scikit-learn's 1,797 real handwritten digits (UCI optdigits, test part), split once; no digit is in two parts."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats, Labels

LABELS = tuple(str(digit) for digit in range(10))
Part = Literal["train", "fit", "threshold", "test"]
SHARES: dict[Part, float] = {"train": 0.45, "fit": 0.08, "threshold": 0.28, "test": 0.19}
_SPLIT_SEED = 8


class Digits(msgspec.Struct, frozen=True):
    """`pictures`: (n, 8, 8) float32 in 0..16, `labels`: (n,) int64, `rows`: (n,) their numbers in the data set."""

    pictures: Floats
    labels: Labels
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Digits:
        return Digits(self.pictures[rows], self.labels[rows], self.rows[rows])


def load() -> Digits:
    """All digits, in the data set's order."""
    from sklearn.datasets import load_digits

    found = load_digits()
    labels = np.asarray(found.target, np.int64)
    return Digits(np.asarray(found.images, np.float32), labels, np.arange(len(labels), dtype=np.int64))


def split(digits: Digits) -> dict[Part, Digits]:
    """The parts, each with the same share of every label."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits))
    edges = np.cumsum(list(SHARES.values()))[:-1]
    picked: dict[Part, list[npt.NDArray[np.int64]]] = {part: [] for part in SHARES}
    for label in np.unique(digits.labels):
        rows = order[digits.labels[order] == label]
        for part, chunk in zip(SHARES, np.split(rows, np.rint(edges * len(rows)).astype(int)), strict=True):
            picked[part].append(chunk)
    return {part: digits.take(np.sort(np.concatenate(chunks))) for part, chunks in picked.items()}
