"""Which of those who wait share the next run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from runtime.serving.batching.line import Entry
from runtime.serving.batching.service_times import PAYS, ServiceTimes

T = TypeVar("T", bound=Entry)


def form(ordered: Iterator[T], times: ServiceTimes, now_s: float) -> list[T]:
    """The first of `ordered`, and those behind it with whom it pays to share a run that leaves all of them in time.

    Among the splits of the requests in it no other keeps more deadlines: all its members are in time, and whoever comes
    behind begins no later than after smaller runs, which take more time for the same rows. Nobody waits for company
    that may never come: while the engine is busy, company gathers by itself. So does BatchMaker (Gao et al., EuroSys
    2018), and Clockwork (Gujarati et al., OSDI 2020) takes the largest batch that the earliest deadline allows.
    Clipper (Crankshaw et al., NSDI 2017) gains from a delay where one run costs about the same for any batch; but a
    delay is idle time, which is paid under load and is worth only as much as the forecast of who comes next.
    """
    growing = _Growing(next(ordered), times, now_s)
    company = (entry for entry in ordered if entry.key == growing.members[0].key)
    entry = next(company, None)
    for size in times.sizes:
        while entry is not None and growing.rows + entry.rows <= size:
            growing.take(entry)
            entry = next(company, None)
        growing.weigh(size)
        if entry is None or growing.done:
            break
    return growing.members[: growing.best]


class _Growing(Generic[T]):
    """A batch that grows behind its head; its first `best` members are the best batch so far."""

    def __init__(self, head: T, times: ServiceTimes, now_s: float) -> None:
        self.members = [head]
        self.rows = head.rows
        self.best = 1
        self.done = False
        self._best_rows = head.rows
        self._best_s = times.run_s(head.rows)
        self._earliest_s = head.expires_at_s
        self._times = times
        self._now_s = now_s
        self._far_s = now_s + times.longest_s

    def take(self, entry: T) -> None:
        """Lets `entry` in unless the run would then end too late for it, or for one who is in already."""
        end_s = self._far_s
        if end_s > self._earliest_s or end_s > entry.expires_at_s:
            end_s = self._now_s + self._times.sure_s(self.rows + entry.rows)
        if end_s > self._earliest_s:
            self.done = True
        elif not self.done and end_s <= entry.expires_at_s:
            self.members.append(entry)
            self.rows += entry.rows
            self._earliest_s = min(self._earliest_s, entry.expires_at_s)

    def weigh(self, size: int) -> None:
        """Whether all members make a better batch than the best before with the rest apart, or are a size to try."""
        rest = self.rows - self._best_rows
        if not rest:
            return
        run_s = self._times.run_s(self.rows)
        apart_s = self._best_s + rest * self._times.pace_s(rest)
        best_row_s = self._best_s / self._best_rows
        tried = self.rows == size and self._best_rows * 2 >= size and self._times.due(size, best_row_s)
        if tried or run_s <= PAYS * apart_s:
            self.best, self._best_rows, self._best_s = len(self.members), self.rows, run_s
            self.done = self.done or tried
