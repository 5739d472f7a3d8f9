"""The seed threshold of a bundle: fixed-sequence Learn-then-Test for the joint risk."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.risk import binomial

ESCALATE_ALL = 2.0
"""A threshold no confidence reaches."""


class Fit(msgspec.Struct, frozen=True):
    """Accept at the edge when confidence >= `threshold`. `kept_wrong` of `n` samples were kept and differed.

    Not `feasible`: no threshold holds, everything escalates; `smallest_epsilon` is then the least joint risk that
    these samples certify, at the strictest threshold. It is `epsilon` itself otherwise.
    """

    threshold: float
    n: int
    kept_wrong: int
    escalation: float
    feasible: bool
    smallest_epsilon: float


def fit(confidence: npt.NDArray[np.float64], differs: npt.NDArray[np.bool_], *, epsilon: float, delta: float) -> Fit:
    """The lowest threshold whose joint risk P(confidence >= λ and edge != cloud) is at most epsilon, at 1 - delta.

    `confidence`: (n,) float64 in 0..1, `differs`: (n,) bool, independent samples that neither the model nor its
    temperature has seen. Thresholds are tested from the strictest down (a grid fixed before the data is seen), each
    by an exact binomial test of H: R(λ) > ε, stopping at the first that is not rejected, so that the family-wise
    error is delta with no correction (Angelopoulos et al. 2021, "Learn then Test", fixed-sequence testing).
    """
    n = len(confidence)
    wrong = _kept(confidence[differs])
    allowed = _most_wrong(n, epsilon, delta)
    passed = int(np.count_nonzero(wrong <= allowed))
    if passed == 0:
        return Fit(ESCALATE_ALL, n, 0, 1.0, False, binomial.upper_bound(int(wrong[0]), n, delta))
    last = passed - 1
    escalation = 1.0 - int(_kept(confidence)[last]) / n
    return Fit(float(_GRID[last]), n, int(wrong[last]), escalation, True, epsilon)


def _kept(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many are at or above each threshold of the grid: grows along it, so the tests pass up to some threshold."""
    numbers = np.sort(confidence[~np.isnan(confidence)])
    return len(numbers) - np.searchsorted(numbers, _GRID, side="left")


def _most_wrong(n: int, epsilon: float, delta: float) -> int:
    """The largest k whose exact test still rejects H: R > epsilon, that is P(Bin(n, epsilon) <= k) <= delta."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial.cdf(middle, n, epsilon) <= delta else (low, middle)
    return low


_GRID = 1.0 - np.concatenate(([0.0], np.geomspace(1e-4, 1.0, 2000)))
"""From 1 (almost nothing kept) down to 0 (everything kept), finer near 1, where softmax confidences crowd."""
