"""The retry budget: one allowance for all second tries, so that a bad minute never becomes a retry storm."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 10.0


class RetryBudget:
    """A token bucket over the last 10 s: `ratio` of the requests seen, plus a floor of `floor_per_s`.

    Retries count when they are queued, not when they end. The shape is Finagle's RetryBudget
    (https://twitter.github.io/finagle/guide/Clients.html#retries); the clock is the caller's.
    """

    def __init__(self, *, ratio: float = 0.1, floor_per_s: float = 10.0) -> None:
        self._ratio = ratio
        self._floor = floor_per_s * _WINDOW_S
        self._deposits: deque[tuple[float, int]] = deque()
        self._withdrawals: deque[float] = deque()
        self._deposited = 0

    def deposit(self, now_s: float) -> None:
        """Counts one first try."""
        second = float(int(now_s))
        if self._deposits and self._deposits[-1][0] == second:
            self._deposits[-1] = (second, self._deposits[-1][1] + 1)
        else:
            self._deposits.append((second, 1))
        self._deposited += 1
        self._forget(now_s)

    def withdraw(self, now_s: float) -> bool:
        """Takes one retry; False when the budget is spent, and the caller must then give up."""
        self._forget(now_s)
        if len(self._withdrawals) + 1 > self._floor + self._ratio * self._deposited:
            return False
        self._withdrawals.append(now_s)
        return True

    def balance(self, now_s: float) -> float:
        self._forget(now_s)
        return self._floor + self._ratio * self._deposited - len(self._withdrawals)

    def _forget(self, now_s: float) -> None:
        while self._deposits and self._deposits[0][0] <= now_s - _WINDOW_S:
            self._deposited -= self._deposits.popleft()[1]
        while self._withdrawals and self._withdrawals[0] <= now_s - _WINDOW_S:
            self._withdrawals.popleft()
