"""How many chunks are under way at a time, and which of them are lost. Pure: times come in as arguments.

Nothing promises that a chunk arrives: brokers drop what is too much for them without a word. So the window grows while
all goes well and halves on a loss, as TCP's does (RFC 5681), and what is overdue is asked for again (RFC 6298).
"""

from __future__ import annotations

from typing import NamedTuple

FIRST_CHUNKS, MOST_CHUNKS = 4, 64
FIRST_TIMEOUT_S, SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S = 3.0, 0.5, 30.0
QUICK_S, SLOW_S = 0.5, 2.0
"""Where chunks take longer than QUICK_S the window grows no more, and above SLOW_S it shrinks: they only queue."""


class _Asked(NamedTuple):
    at_s: float
    again: bool


class Window:
    """The chunks of one content that were asked for and have not come."""

    def __init__(self, *, most: int = MOST_CHUNKS) -> None:
        self._most = float(most)
        self._size = float(min(FIRST_CHUNKS, most))
        self._threshold = self._most
        self._asked: dict[int, _Asked] = {}
        self._lost: set[int] = set()
        self._smooth_s: float | None = None
        self._spread_s = 0.0
        self._timeout_s = FIRST_TIMEOUT_S
        self._halved_at_s = float("-inf")

    @property
    def size(self) -> int:
        return int(self._size)

    @property
    def room(self) -> int:
        """How many more may be asked for now."""
        return max(0, self.size - len(self._asked))

    def ask(self, index: int, now_s: float) -> None:
        self._asked[index] = _Asked(now_s, index in self._lost)

    def knows(self, index: int) -> bool:
        """Whether it was asked for, though it may have been given up for lost since."""
        return index in self._asked or index in self._lost

    def arrived(self, index: int, now_s: float) -> bool:
        """One that `knows` knows. False when it is not under way: it was given up for lost, and must not be asked for
        again. Such ones teach nothing about time: which asking was it?"""
        asked = self._asked.pop(index, None)
        self._lost.discard(index)
        if asked is not None and not asked.again:
            self._learn(now_s - asked.at_s)
        return asked is not None

    def forget(self) -> list[int]:
        """All that is under way, after a connection was lost: nobody will answer, and nobody is to blame."""
        forgotten, self._asked = list(self._asked), {}
        self._lost.update(forgotten)
        return forgotten

    def late(self, now_s: float) -> list[int]:
        """The chunks that are overdue: they count as lost from now on, and are to be asked for again."""
        overdue = [index for index, asked in self._asked.items() if now_s - asked.at_s >= self._timeout_s]
        if overdue:
            first_s = min(self._asked.pop(index).at_s for index in overdue)
            self._lost.update(overdue)
            self._halve(first_s, now_s)
        return overdue

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next chunk is overdue."""
        oldest_s = min((asked.at_s for asked in self._asked.values()), default=now_s)
        return max(0.0, oldest_s + self._timeout_s - now_s)

    def _learn(self, took_s: float) -> None:
        """RFC 6298, 2: the timeout is the smoothed time and four times its spread."""
        if self._smooth_s is None:
            self._smooth_s, self._spread_s = took_s, took_s / 2
        else:
            self._spread_s += (abs(self._smooth_s - took_s) - self._spread_s) / 4
            self._smooth_s += (took_s - self._smooth_s) / 8
        self._timeout_s = min(LONGEST_TIMEOUT_S, max(SHORTEST_TIMEOUT_S, self._smooth_s + 4 * self._spread_s))
        if took_s <= QUICK_S:
            self._size += 1.0 if self._size < self._threshold else 1.0 / self._size
        elif took_s > SLOW_S:
            self._size -= 1.0 / self._size
        self._size = min(self._most, max(1.0, self._size))

    def _halve(self, asked_at_s: float, now_s: float) -> None:
        """Once for all losses of one window: those asked for before the last cut are of the same mishap."""
        if asked_at_s > self._halved_at_s:
            self._threshold = self._size = max(1.0, self._size / 2)
            self._timeout_s = min(LONGEST_TIMEOUT_S, self._timeout_s * 2)
            self._halved_at_s = now_s
