"""What is counted of a camera. Changed on the event loop, but for what its thread counts."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import Literal

import msgspec

Dropped = Literal["newer", "busy", "late", "no-model", "failed"]
"""A newer picture came first; the model's queue was full; there was no time left; there is no such model; a defect."""

_RECENT_S = 10.0
_LATENCIES = 512
BOUNDS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Figures(msgspec.Struct, kw_only=True):
    """`given_way`: pictures that a newer one has displaced; `gated` by verdict of the motion gate; `latencies_ms` from
    capture to result of the last ones; `judged` counts what became of doubts; `sent` and `sent_bytes` the pictures that
    left the box, by purpose; `by_latency` how many of all results came within each of BOUNDS_S, and beyond; `events` by
    type."""

    given_way: int = 0
    gated: Counter[str] = msgspec.field(default_factory=Counter)
    dropped: Counter[str] = msgspec.field(default_factory=Counter)
    inferred: int = 0
    events: Counter[str] = msgspec.field(default_factory=Counter)
    judged: Counter[str] = msgspec.field(default_factory=Counter)
    sent: Counter[str] = msgspec.field(default_factory=Counter)
    sent_bytes: Counter[str] = msgspec.field(default_factory=Counter)
    latencies_ms: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=_LATENCIES))
    by_latency: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    latency_s: float = 0.0

    def saw(self, latency_s: float) -> None:
        """A result, so long after its picture was taken."""
        self.inferred += 1
        self.latencies_ms.append(latency_s * 1000.0)
        self.by_latency[bisect_left(BOUNDS_S, latency_s)] += 1
        self.latency_s += latency_s

    def latency_ms(self, share: float) -> float:
        """That `share` of the last results came within; 0 before the first one."""
        told = sorted(self.latencies_ms)
        return told[min(len(told) - 1, int(share * len(told)))] if told else 0.0


class Rate:
    """How often something that is counted happens, a second, over the last ten."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, count: int, now_s: float) -> float:
        """The rate, now that there are `count` of it."""
        self._seen.append((now_s, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _RECENT_S:
            self._seen.popleft()
        first_s, first = self._seen[0]
        return (count - first) / (now_s - first_s) if now_s > first_s else 0.0
