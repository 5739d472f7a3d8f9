"""Latencies of any number of requests in bounded room: counts in buckets that grow by 1 %, so that quantiles do too."""

from __future__ import annotations

import math

_LEAST_MS = 0.001
_STEP = math.log(1.01)
_BUCKETS = 2400
"""From a microsecond to more than a day."""


class Latencies:
    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0

    def add(self, ms: float) -> None:
        at = int(math.log(max(ms, _LEAST_MS) / _LEAST_MS) / _STEP)
        self._counts[min(at, _BUCKETS - 1)] += 1
        self.count += 1

    def quantile(self, percent: float) -> float:
        """In ms, exact to 1 %; 0 when there was none."""
        wanted, seen = self.count * percent / 100.0, 0
        for at, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _LEAST_MS * math.exp((at + 0.5) * _STEP)
        return 0.0
