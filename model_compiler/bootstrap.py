"""How sure a difference between two models on the same rows is: the paired bootstrap."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.errors import CompileError

Doubles = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1 << 22
_FEW = 64


class Interval(msgspec.Struct, frozen=True):
    """`mean` as measured, and the ends of the interval around it, all in one unit."""

    mean: float
    low: float
    high: float


def paired_difference(
    a: npt.NDArray[Any], b: npt.NDArray[Any], seed: int, *, resamples: int = RESAMPLES, largest: float = 1.0
) -> Interval:
    """The mean of a - b with its 95 % interval. `a`, `b`: (n,), each row's score: right or wrong, a share. `largest`:
    the largest difference that a row can have.

    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13: rows are drawn with replacement,
    each with both its scores, so that what makes a row hard for both models cancels; the interval is that of the
    percentiles. Where all rows differ alike there is nothing to draw, and the interval is exact (`_of_rows_alike`).
    Equal arguments give equal intervals. Raises CompileError for rows that do not pair, for none, and for scores that
    are no finite numbers.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise CompileError(f"Scores of shapes {a.shape} and {b.shape} do not pair. Score both models on the same rows.")
    differences = a.astype(np.float64) - b.astype(np.float64)
    if not np.isfinite(differences).all():
        raise CompileError("A row's score is not a finite number. Look for NaN in the outputs of both models.")
    if (differences == differences[0]).all():
        return _of_rows_alike(float(differences[0]), len(differences), largest)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(_resampled_means(differences, seed, resamples), (tail, 100.0 - tail))
    return Interval(float(differences.mean()), float(low), float(high))


def _of_rows_alike(difference: float, n: int, largest: float) -> Interval:
    """None of `n` rows has another difference than this one: how many rows yet unseen may?

    At most a share 1 - (1 - CONFIDENCE)^(1/n) of them, about 3/n (Hanley & Lippman-Hand 1983, "If Nothing Goes Wrong,
    Is Everything All Right?": the Clopper-Pearson bound where nothing was counted), each by as much as `largest`.
    """
    others = 1.0 - (1.0 - CONFIDENCE) ** (1.0 / n)
    same = (1.0 - others) * difference
    return Interval(difference, same - others * largest, same + others * largest)


def _resampled_means(differences: Doubles, seed: int, resamples: int) -> Doubles:
    """(resamples,) means, drawn in runs that fit in memory.

    A resample is a multinomial draw of how often each distinct difference comes. Right and wrong have but three, and
    these draws then cost nothing; of many distinct ones the rows themselves are drawn: the same distribution.
    """
    rng, n = np.random.default_rng(seed), len(differences)
    values, counts = np.unique(differences, return_counts=True)
    few = len(values) <= _FEW
    run = max(1, _AT_ONCE // (len(values) if few else n))
    means: list[Doubles] = []
    for start in range(0, resamples, run):
        size = min(run, resamples - start)
        if few:
            means.append(rng.multinomial(n, counts / n, size=size) @ values / n)
        else:
            means.append(differences[rng.integers(0, n, size=(size, n))].mean(axis=1))
    return np.concatenate(means)
