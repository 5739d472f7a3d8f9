"""One timer for all who wait for something that mostly comes long before their time is over."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Alarm(Generic[T]):
    """Calls `ring` on the running event loop with each item whose time comes before it is cleared. Times in seconds on
    `clock`, which may run otherwise than the loop's own."""

    def __init__(self, ring: Callable[[T], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = ring
        self._clock = clock
        self._times_s: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = math.inf

    def __len__(self) -> int:
        """How many wait."""
        return len(self._times_s)

    def set(self, item: T, at_s: float) -> None:
        self._times_s[item] = at_s
        if at_s < self._next_s:
            self._start(at_s)

    def clear(self, item: T) -> None:
        """Nothing where it was not set."""
        self._times_s.pop(item, None)

    def stop(self) -> None:
        self._times_s.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - self._clock()), self._look)

    def _look(self) -> None:
        now_s, self._timer, self._next_s = self._clock(), None, math.inf
        for item in [item for item, at_s in self._times_s.items() if at_s <= now_s]:
            if self._times_s.pop(item, None) is not None:
                self._ring(item)
        if self._times_s and self._timer is None:
            self._start(min(self._times_s.values()))
