"""The median of repeated timings, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model_compiler.errors import CompileError
from model_compiler.reporting.findings import Latency

_Z = 1.96


def latency_of(times_ms: Sequence[float]) -> Latency:
    """The median with the 95 % interval between two order statistics, whatever the times' distribution.

    Their ranks are n/2 ± 1.96 sqrt(n)/2, rounded outwards (Conover 1999, "Practical Nonparametric Statistics",
    section 3.2), the runs taken as independent. With fewer than 6 runs the interval is all of them.
    """
    if not times_ms:
        raise CompileError("A latency needs at least one run. Time the artifact again.")
    ordered, n = sorted(times_ms), len(times_ms)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    away = _Z * math.sqrt(n) / 2
    low, high = math.floor(n / 2 - away), math.ceil(n / 2 + away)
    return Latency(middle, ordered[max(0, low - 1)], ordered[min(n - 1, high)], n)
