"""What becomes of the requests for one model: who is let in, who runs next, who is refused. It does no I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

import msgspec

from contracts.gradient import Gradient2
from runtime.serving.batching import refusals
from runtime.serving.batching.forming import form
from runtime.serving.batching.line import Entry, Line
from runtime.serving.batching.refusals import REASONS, Reason, Refused
from runtime.serving.batching.service_times import ServiceTimes

RETRY_S = 1.0
"""`Retry-After` counts whole seconds: who can be answered within one is not better off elsewhere in time."""
PROBE_S = 1.0
"""After so long without a run, one request is run whatever its deadline: an estimate nobody can meet is asked again."""

SPREAD = 1.5
"""A batch is spread over idle lanes where it then ends so many times as soon: that is worth the engine time that apart
takes more than together."""

PRESSED_RUNS = 2.0
"""For the time of so many runs after a refusal for want of time or room, others are taken to be refused still."""

KEPT = 0.98
"""Of those who are let in, so many are to be answered: who is told no at once is better off than who waits for it."""
_SLACK_STEP, _SLACK_MOST = 0.01, 0.25

T = TypeVar("T", bound=Entry)


class Runs(msgspec.Struct):
    """How often, and the engine's time in all."""

    count: int = 0
    engine_s: float = 0.0


Next = tuple[list[T], list[tuple[T, Refused]]]
"""The batch to run now, and who can no longer be in time."""


class Schedule(Generic[T]):
    """The line before one engine that runs one batch at a time on each of `lanes`. Every time is on the caller's clock,
    in seconds.

    Three bounds keep the line short: `max_waiting` (memory), the deadlines (nobody is let in who would be late), and
    Gradient2's limit (no queue that only makes everybody slower), which refuses nobody who would be served within
    RETRY_S.
    """

    def __init__(self, times: ServiceTimes, *, max_waiting: int, lanes: int = 1) -> None:
        self.times = times
        self.lanes = lanes
        self.line: Line[T] = Line()
        self.gradient = Gradient2(max_waiting + lanes * times.sizes[-1])
        self.refused: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.runs_by_rows: dict[int, int] = {}
        self.sound_runs: dict[int, Runs] = {}
        self.engine_s = 0.0
        self._max_waiting = max_waiting
        self._least = (lanes + 1) * times.sizes[-1]
        self._running = 0
        self._ends_s: dict[int, float] = {}
        self._last_end_s = math.inf
        self._pressed_at_s = -math.inf
        self._slack = 0.0

    @property
    def limit(self) -> int:
        """How many requests may be here, waiting and running: Gradient2's word, but no less than RETRY_S of work."""
        pace_s = self.times.pace_s(self.times.sizes[-1])
        soon = RETRY_S * self.lanes / pace_s if pace_s else math.inf
        return int(max(self.gradient.limit, min(soon, self._max_waiting), self._least))

    def admit(self, entry: T, now_s: float) -> tuple[T, Refused] | None:
        """Lets `entry` into the line; returns who had to leave it for that. Raises Refused."""
        self.foresee(entry, now_s)
        displaced = self._displace(now_s) if self.line.waiting >= self._max_waiting else None
        self.line.add(entry)
        return displaced

    def foresee(self, entry: Entry, now_s: float) -> None:
        """Raises Refused where `entry` would not be let in now."""
        self._last_end_s = min(self._last_end_s, now_s)
        try:
            self._check_time(entry, now_s)
            self._check_room(entry, now_s)
        except Refused as refusal:
            self.count(refusal)
            if refusal.code == "overloaded":
                self._pressed_at_s = now_s
            raise

    def next(self, now_s: float, *, lanes: int = 1) -> Next[T]:
        """The batch to run now, empty only when nobody waits; nothing changes but that the late leave the line.

        `lanes` may begin a run now: what waits is shared among them where that ends it clearly sooner.
        """
        late: list[tuple[T, Refused]] = []
        while (head := next(self.line.ordered(), None)) is not None:
            refusal = self._too_late(head, now_s)
            if refusal is not None and self._probes(now_s):
                refusal = None
            if refusal is None:
                alone = self.line.waiting == 1
                return ([head] if alone else self._form(now_s, lanes)), late
            late.append((head, self.count(refusal)))
            self.line.discard(head)
            self._learn(1, kept=False)
        return [], late

    def begin(self, batch: Sequence[T], now_s: float) -> None:
        """Takes `batch` out of the line."""
        self.line.led(batch)
        self._learn(len(batch), kept=True)
        self._running += len(batch)
        self._ends_s[batch[0].ticket] = now_s + self.times.run_s(_rows(batch))

    def end(self, batch: Sequence[T], *, engine_s: float, whole_s: float, now_s: float, sound: bool) -> None:
        """Learns from a run that has ended: what the engine took, and what it took from the wish for it to now.

        A run that was not `sound` (it failed, or was given up) tells nothing of the others.
        """
        rows = _rows(batch)
        if sound:
            self.times.observe(rows, engine_s, whole_s)
            runs = self.sound_runs.setdefault(rows, Runs())
            runs.count += 1
            runs.engine_s += engine_s
        in_flight = self._running + self.line.waiting
        for entry in batch:
            self.gradient.observe(now_s - entry.since_s, in_flight, now_s)
        self.runs_by_rows[rows] = self.runs_by_rows.get(rows, 0) + 1
        self.engine_s += engine_s
        self._running -= len(batch)
        del self._ends_s[batch[0].ticket]
        self._last_end_s = now_s

    def count(self, refusal: Refused) -> Refused:
        self.refused[refusal.reason] += 1
        return refusal

    def _check_time(self, entry: Entry, now_s: float) -> None:
        left_s = entry.expires_at_s - now_s
        if left_s <= 0:
            raise refusals.expired("the model could run")
        busy = len(self._ends_s) == self.lanes or self.line.waiting
        if left_s > self._free_s(now_s) + self.line.rows * self.times.pace_s(1) + self.times.longest_s:
            return
        own_s = self._needed_s(entry.rows, alone=not busy)
        if left_s < own_s and not self._probes(now_s):
            raise refusals.no_time(left_s, own_s)
        if busy:
            ahead = self.line.ahead(entry.level, entry.expires_at_s)
            rows = math.ceil(ahead) + entry.rows
            own_s = max(own_s, self.times.sure_s(self.times.best(rows)))
            needed_s = (1.0 + self._slack) * self._behind_s(ahead * self.times.pace_s(rows), now_s) + own_s
            if left_s < needed_s:
                raise refusals.late(left_s, needed_s)

    def _too_late(self, head: T, now_s: float) -> Refused | None:
        """Why `head` is not run: it would be late, or has time for a small batch only while others are refused.

        Then a second of the engine is worth as many requests as the best batches answer in it, which is more than a
        small batch does: dropping its head early answers more, as in Nexus (Shen et al., SOSP 2019, section 4.3).
        """
        left_s = head.expires_at_s - now_s
        if left_s > self.times.longest_s:
            return None
        own_s = self._needed_s(head.rows, alone=self.line.waiting == 1)
        if left_s < own_s:
            return refusals.no_time(left_s, own_s)
        shared_s = self.times.sure_s(self.times.best(self.line.rows))
        if left_s < shared_s and now_s - self._pressed_at_s < PRESSED_RUNS * shared_s:
            return refusals.late(left_s, shared_s)
        return None

    def _learn(self, count: int, *, kept: bool) -> None:
        """By stochastic approximation, as `ServiceTimes` does, the share by which waits turn out longer than foreseen
        for all but 1 - KEPT of those who are let in."""
        step = -_SLACK_STEP * (1.0 - KEPT) if kept else _SLACK_STEP * KEPT
        self._slack = min(_SLACK_MOST, max(0.0, self._slack + count * step))

    def _needed_s(self, rows: int, *, alone: bool) -> float:
        """Where others wait, a run that may well be late would take the place of one that is in time."""
        return self.times.run_s(rows) if alone else self.times.sure_s(rows)

    def _probes(self, now_s: float) -> bool:
        return not self._running and now_s - self._last_end_s >= PROBE_S

    def _check_room(self, entry: Entry, now_s: float) -> None:
        """In a full line there is only room for who comes before somebody of a lower level."""
        waiting, last = self.line.waiting, self.line.lowest()
        here = waiting + self._running
        if waiting >= self._max_waiting:
            if last is None or last.level <= entry.level:
                raise refusals.full(waiting, self._drained_s(now_s))
        elif here >= self._least and here >= self.limit:
            raise refusals.limited(self.limit, self._drained_s(now_s))

    def _displace(self, now_s: float) -> tuple[T, Refused] | None:
        """The last one of the lowest level makes room."""
        last = self.line.lowest()
        if last is None:
            return None
        self.line.discard(last)
        return last, self.count(refusals.displaced(self._drained_s(now_s)))

    def _drained_s(self, now_s: float) -> float:
        """Until a lane is free behind all that waits and runs now."""
        return self._behind_s(self.line.rows * self.times.pace_s(self.line.rows), now_s)

    def _behind_s(self, work_s: float, now_s: float) -> float:
        """Until a lane is free behind what runs now and `work_s` of runs that wait.

        Work poured on the lanes that are free first, until it stands equally high on all that it reaches: no lane that
        takes whole runs, each when it is free, is free later.
        """
        if self.lanes == 1:
            return self._free_s(now_s) + work_s
        ends_s = sorted(max(0.0, end_s - now_s) for end_s in self._ends_s.values())
        levels_s = accumulate([0.0] * (self.lanes - len(ends_s)) + ends_s)
        return min((level_s + work_s) / lanes for lanes, level_s in enumerate(levels_s, 1))

    def _free_s(self, now_s: float) -> float:
        """Until a lane is free."""
        return 0.0 if len(self._ends_s) < self.lanes else max(0.0, min(self._ends_s.values()) - now_s)

    def _form(self, now_s: float, lanes: int) -> list[T]:
        batch = form(self.line.ordered(), self.times, now_s)
        part = batch[: math.ceil(self.line.waiting / lanes)]
        spread = lanes > 1 and SPREAD * self.times.run_s(_rows(part)) <= self.times.run_s(_rows(batch))
        return part if spread else batch


def _rows(batch: Sequence[Entry]) -> int:
    return sum(entry.rows for entry in batch)
