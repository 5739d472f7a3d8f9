"""Who waits for a model, in which order: levels of priority, the earliest deadline first within each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

LEVELS = 3
DEFAULT_LEVEL = 2
PATIENCE = 7
"""A level that waits is passed over by at most so many runs in a row; it heads the next one."""


class Entry(msgspec.Struct, eq=False, kw_only=True):
    """One request: `rows` of one `key` (what may share a run). `level` 1 goes first. Times on the caller's clock."""

    rows: int
    key: Hashable
    level: int
    since_s: float
    expires_at_s: float
    ticket: int = 0


T = TypeVar("T", bound=Entry)
_Place = tuple[float, int, T]


def level_of(priority: int) -> int:
    """The level of a request's `priority`: 1 to LEVELS, the lowest for anything beyond, the default for 0.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_schedule_policy.md
    """
    return min(priority, LEVELS) if priority else DEFAULT_LEVEL


class Line(Generic[T]):
    """A level is served before those below it, but for one run in PATIENCE + 1, so that no level waits for ever."""

    def __init__(self) -> None:
        self._levels: list[list[_Place[T]]] = [[] for _ in range(LEVELS)]
        self._passed = [0] * LEVELS
        self._tickets = 0
        self.rows = 0
        self.waiting = 0

    def add(self, entry: T) -> None:
        self._tickets += 1
        entry.ticket = self._tickets
        insort(self._levels[entry.level - 1], (entry.expires_at_s, entry.ticket, entry))
        self.rows += entry.rows
        self.waiting += 1

    def discard(self, entry: T) -> bool:
        """Takes an entry out; whether it was there."""
        level = self._levels[entry.level - 1]
        at = bisect_left(level, (entry.expires_at_s, entry.ticket))
        if at == len(level) or level[at][2] is not entry:
            return False
        del level[at]
        self.rows -= entry.rows
        self.waiting -= 1
        return True

    def led(self, batch: Sequence[T]) -> None:
        """Takes a batch that is run now out, and counts whom it has passed over."""
        for entry in batch:
            self.discard(entry)
        served = {entry.level for entry in batch}
        for at, level in enumerate(self._levels):
            waits = bool(level) and at + 1 not in served
            self._passed[at] = self._passed[at] + 1 if waits else 0

    def ordered(self) -> Iterator[T]:
        """All of them, the next one first."""
        for at in self._order():
            for _, _, entry in self._levels[at]:
                yield entry

    def ahead(self, level: int, expires_at_s: float) -> float:
        """About how many rows would go before a newcomer: requests of one line have about the same size."""
        before = sum(len(above) for above in self._levels[: level - 1])
        before += bisect_left(self._levels[level - 1], (expires_at_s, self._tickets + 1))
        return self.rows * before / self.waiting if self.waiting else 0.0

    def lowest(self) -> T | None:
        """Who would go last."""
        return next((level[-1][2] for level in reversed(self._levels) if level), None)

    def _order(self) -> list[int]:
        filled = [at for at in range(LEVELS) if self._levels[at]]
        starved = [at for at in filled if self._passed[at] >= PATIENCE]
        if not starved:
            return filled
        first = max(starved, key=lambda at: self._passed[at])
        return [first, *(at for at in filled if at != first)]
