"""When a second copy of a late request goes out, and whether one may."""

from __future__ import annotations

from collections import deque

from contracts.budgets import RetryBudget

HEDGES = 0.02
"""So large a part of a router's requests may have a second copy."""
_LATE = 0.99
_ANSWERS, _LOOK_EVERY = 500, 50
_FIRST_LATE_MS = 500.0


class Hedging:
    """One router's. A second copy goes out once a request is later than 99 of 100 of the last 500 were, against what
    was expected of each; the one that is answered later is heard too, so that slow nodes are known as such."""

    def __init__(self, share: float = HEDGES) -> None:
        self._budget = RetryBudget(ratio=share, floor_per_s=0.0)
        self._beyond_ms: deque[float] = deque(maxlen=_ANSWERS)
        self._late_ms = _FIRST_LATE_MS
        self._answers = 0

    def wait_ms(self, expected_ms: float) -> float:
        return expected_ms + self._late_ms

    def learn(self, took_ms: float, expected_ms: float) -> None:
        self._beyond_ms.append(took_ms - expected_ms)
        self._answers += 1
        if self._answers % _LOOK_EVERY == 0:
            self._late_ms = max(0.0, sorted(self._beyond_ms)[int(_LATE * len(self._beyond_ms))])

    def deposit(self, now_s: float) -> None:
        self._budget.deposit(now_s)

    def may(self, now_s: float) -> bool:
        """Takes one from the budget."""
        return self._budget.withdraw(now_s)
