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

    Not `feasible`: no threshold holds, everything escalates; `smallest_epsilon` is then the least joint risk that n
    samples could certify with the best threshold.
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
    best = Fit(ESCALATE_ALL, n, 0, 1.0, False, binomial.upper_bound(0, n, delta) if n else 1.0)
    for threshold in _GRID:
        kept = confidence >= threshold
        wrong = int(np.count_nonzero(kept & differs))
        if n == 0 or binomial.cdf(wrong, n, epsilon) > delta:
            break
        best = Fit(float(threshold), n, wrong, float(1.0 - kept.mean()), True, epsilon)
    return best


_GRID = 1.0 - np.concatenate(([0.0], np.geomspace(1e-4, 1.0, 200)))
"""From 1 (almost nothing kept) down to 0 (everything kept), finer near 1, where softmax confidences crowd."""
