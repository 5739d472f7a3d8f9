"""The seed threshold of a bundle: fixed-sequence Learn-then-Test for the joint risk."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.risk import binomial

ESCALATE_ALL = 2.0
"""A threshold no confidence reaches."""
STRICTEST = 1.0
LOOSEST = 1e-9
"""A confidence of 0 stands for an answer that is no number: no threshold lets it pass."""

Confidences = npt.NDArray[np.float64]


class Fit(msgspec.Struct, frozen=True):
    """Accept at the edge when confidence >= `threshold`. `kept_wrong` of `n` samples were kept and differed.

    Not `feasible`: no threshold that may be tested holds, and everything escalates. `smallest_epsilon` is then the
    least joint risk that these samples certify, at the strictest of those thresholds; else it is `epsilon` itself.
    """

    threshold: float
    n: int
    kept_wrong: int
    escalation: float
    feasible: bool
    smallest_epsilon: float


def fit(
    confidence: Confidences,
    differs: npt.NDArray[np.bool_],
    *,
    epsilon: float,
    delta: float,
    strictest: float = STRICTEST,
) -> Fit:
    """The lowest threshold whose joint risk R(λ) = P(confidence >= λ, edge != cloud) is at most epsilon, at 1 - delta.

    `confidence`: (n,) float64 in 0..1, `differs`: (n,) bool: independent samples that neither the model nor its
    confidence maps have seen. A confidence that is no number is never kept.

    Fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test"): thresholds are tested from `strictest` down,
    each by an exact binomial test of H: R(λ) > ε, up to the first that is not rejected, so that the family-wise error
    is delta with no correction. R falls as λ grows, so the sequence may be every number (Bates et al. 2021,
    "Distribution-free, risk-controlling prediction sets"): the count of kept samples that differ changes only at
    these, and the tests stop just above the first such sample too many.

    No rule with this guarantee does better on the same scores. For every λ the event "threshold <= λ" must have a
    probability of at most delta wherever R(λ) > ε: it is itself a test of H. The binomial test has the most power of
    all (Neyman and Pearson 1933), up to the rounding of its count to whole samples.

    `strictest` must be fixed without these samples, as `strictest_within` does for a budget of escalations on others.
    It is the first of the sequence, so the bound of Clopper and Pearson 1934 on its joint risk, which is what
    `smallest_epsilon` gives when the first test fails, holds at 1 - delta with no correction either.
    """
    n, strictest = len(confidence), max(strictest, LOOSEST)
    wrong = np.sort(confidence[differs & ~np.isnan(confidence)])[::-1]
    allowed = binomial.critical_count(n, epsilon, delta)
    first = int(np.count_nonzero(wrong >= strictest))
    if first > allowed:
        return Fit(ESCALATE_ALL, n, 0, 1.0, False, binomial.upper_bound(first, n, delta))
    threshold = LOOSEST if len(wrong) <= allowed else _above(float(wrong[allowed]), confidence, strictest)
    kept_wrong = int(np.count_nonzero(wrong >= threshold))
    return Fit(threshold, n, kept_wrong, 1.0 - float(np.mean(confidence >= threshold)), True, epsilon)


def strictest_within(confidence: Confidences, max_escalation: float) -> float:
    """The strictest threshold that escalates at most the share `max_escalation` of samples with `confidence` (n,)."""
    below = math.floor(max_escalation * len(confidence) + 1e-9)
    if below >= len(confidence):
        return STRICTEST
    return max(LOOSEST, float(np.sort(np.nan_to_num(confidence, nan=0.0))[below]))


def _above(refused: float, confidence: Confidences, strictest: float) -> float:
    """A threshold above `refused`, halfway to the next of `confidence` (but at most `strictest`)."""
    following = min(strictest, float(np.min(confidence, initial=strictest, where=confidence > refused)))
    middle = (refused + following) / 2
    return max(LOOSEST, middle if middle > refused else following)
