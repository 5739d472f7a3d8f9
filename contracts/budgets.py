"""The retry budget: one allowance for all second tries, so that a bad minute never becomes a retry storm."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 10.0


class RetryBudget:
    """A token bucket over the last 10 s: `ratio` of the requests seen, or `floor_per_s` where that is more.

    Retries count when they are queued, not when they end. The shape is Finagle's RetryBudget
    (https://twitter.github.io/finagle/guide/Clients.html#retries), but for the floor, which it adds: upstreams see at
    most 1 + `ratio` times the requests, once there are enough of them. The clock is the caller's.
    """

    def __init__(self, *, ratio: float = 0.1, floor_per_s: float = 10.0) -> None:
        self._ratio = ratio
        self._floor = floor_per_s * _WINDOW_S
        self._deposits: deque[_Second] = deque()
        self._withdrawals: deque[float] = deque()
        self._deposited = 0

    def deposit(self, now_s: float) -> None:
        """Counts one first try."""
        self._deposited += 1
        if self._deposits and now_s < self._deposits[-1].ends_s:
            self._deposits[-1].count += 1
            return
        self._deposits.append(_Second(int(now_s) + 1.0))
        self._forget(now_s)

    def withdraw(self, now_s: float) -> bool:
        """Takes one retry; False when the budget is spent, and the caller must then give up."""
        self._forget(now_s)
        if len(self._withdrawals) + 1 > self._allowed:
            return False
        self._withdrawals.append(now_s)
        return True

    def seen(self, now_s: float) -> int:
        """First tries of the last 10 s."""
        self._forget(now_s)
        return self._deposited

    def balance(self, now_s: float) -> float:
        self._forget(now_s)
        return self._allowed - len(self._withdrawals)

    @property
    def _allowed(self) -> float:
        return max(self._floor, self._ratio * self._deposited)

    def _forget(self, now_s: float) -> None:
        while self._deposits and self._deposits[0].ends_s - 1.0 <= now_s - _WINDOW_S:
            self._deposited -= self._deposits.popleft().count
        while self._withdrawals and self._withdrawals[0] <= now_s - _WINDOW_S:
            self._withdrawals.popleft()


class _Second:
    """The first tries of one second."""

    __slots__ = ("count", "ends_s")

    def __init__(self, ends_s: float) -> None:
        self.ends_s = ends_s
        self.count = 1
