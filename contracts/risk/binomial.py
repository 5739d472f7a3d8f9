"""Exact binomial tails and bounds, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable


def cdf(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k), summed in log space; exact to ~1e-12 for n up to 1e6."""
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    log_p, log_q, log_n = math.log(p), math.log1p(-p), math.lgamma(n + 1)
    terms = [log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q for i in range(k + 1)]
    top = max(terms)
    return min(1.0, math.exp(top) * math.fsum(math.exp(term - top) for term in terms))


def upper_bound(k: int, n: int, delta: float) -> float:
    """Clopper-Pearson: the largest p that k failures in n trials do not reject at level `delta` (one-sided)."""
    return 1.0 if k >= n else _bisect(lambda p: cdf(k, n, p) - delta)


def lower_bound(k: int, n: int, delta: float) -> float:
    """Clopper-Pearson: the smallest p that k failures in n trials do not reject at level `delta` (one-sided)."""
    return 0.0 if k <= 0 else _bisect(lambda p: delta - (1.0 - cdf(k - 1, n, p)))


def _bisect(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
