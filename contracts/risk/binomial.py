"""Exact binomial tails and bounds, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable


def cdf(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k), to a relative error of 1e-8 for n up to 1e6, in O(sqrt(n)) steps.

    Summed from k downwards where terms fall; above the mean as one less the other tail.
    """
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    if k > n * p:
        return 1.0 - cdf(n - k - 1, n, 1.0 - p)
    total = term = 1.0
    for i in range(k, 0, -1):
        term *= i / (n - i + 1) * (1.0 - p) / p
        total += term
        if term < 1e-17 * total:
            break
    return min(1.0, total * math.exp(_log_mass(k, n, p)))


def upper_bound(k: int, n: int, delta: float) -> float:
    """Clopper-Pearson: the largest p that k failures in n trials do not reject at level `delta` (one-sided)."""
    return 1.0 if k >= n else _bisect(lambda p: cdf(k, n, p) - delta)


def lower_bound(k: int, n: int, delta: float) -> float:
    """Clopper-Pearson: the smallest p that k failures in n trials do not reject at level `delta` (one-sided)."""
    return 0.0 if k <= 0 else _bisect(lambda p: delta - (1.0 - cdf(k - 1, n, p)))


def critical_count(n: int, p: float, delta: float) -> int:
    """The largest k with P(Bin(n, p) <= k) <= delta, or -1 where none is: up to k failures in n trials reject, at
    level `delta`, that the rate is `p` or more."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cdf(middle, n, p) <= delta else (low, middle)
    return low


def _log_mass(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def _bisect(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
