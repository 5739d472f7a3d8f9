"""An engine and its schedule on a clock that only jumps: what the rules make of a load, without a machine's noise."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from runtime.serving.batching.line import Entry
from runtime.serving.batching.refusals import Refused
from runtime.serving.batching.schedule import Schedule
from runtime.serving.batching.service_times import ServiceTimes

EngineTime = Callable[[int, float], float]
"""Seconds that a run of so many rows takes when it begins at such a time."""


class Arrival(NamedTuple):
    at_s: float
    deadline_s: float
    level: int = 2
    rows: int = 1


class Fate(NamedTuple):
    """What became of one request: answered at `end_s`, or refused then for `reason`."""

    arrival: Arrival
    end_s: float
    reason: str = ""
    retry_after_s: float | None = None

    @property
    def answered(self) -> bool:
        return not self.reason

    @property
    def in_time(self) -> bool:
        return self.answered and self.end_s <= self.arrival.at_s + self.arrival.deadline_s


class Request(Entry, kw_only=True, eq=False):
    arrival: Arrival


class Under(NamedTuple):
    """A run that is under way; the one that ends first comes first."""

    ends_s: float
    number: int
    began_s: float
    batch: list[Request]


class Simulated:
    """As the batcher does it: a request whose deadline comes while it waits or runs is refused at its deadline.

    One run at a time on each of the schedule's lanes.
    """

    def __init__(self, schedule: Schedule[Request], engine: EngineTime) -> None:
        self.schedule = schedule
        self.fates: list[Fate] = []
        self.batches: list[list[Request]] = []
        self.idle_with_work = 0
        self._engine = engine
        self._running: list[Under] = []
        self._alarms: list[tuple[float, int, Request]] = []

    def run(self, arrivals: Iterable[Arrival]) -> list[Fate]:
        ahead = sorted(arrivals)
        at = 0
        while at < len(ahead) or self._running:
            next_s = ahead[at].at_s if at < len(ahead) else float("inf")
            if self._running and self._running[0].ends_s <= next_s:
                self._end()
            else:
                self._arrive(ahead[at])
                at += 1
        return self.fates

    def _arrive(self, arrival: Arrival) -> None:
        now_s = arrival.at_s
        self._expire(now_s)
        request = Request(
            rows=arrival.rows,
            key="",
            level=arrival.level,
            since_s=now_s,
            expires_at_s=now_s + arrival.deadline_s,
            arrival=arrival,
        )
        try:
            displaced = self.schedule.admit(request, now_s)
        except Refused as refusal:
            self.fates.append(Fate(arrival, now_s, refusal.reason, refusal.retry_after_s))
        else:
            if displaced is not None:
                self._refuse(displaced[0], displaced[1], now_s)
            heapq.heappush(self._alarms, (request.expires_at_s, request.ticket, request))
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        while idle := self.schedule.lanes - len(self._running):
            batch, late = self.schedule.next(now_s, lanes=idle)
            for request, refusal in late:
                self._refuse(request, refusal, now_s)
            if not batch:
                self.idle_with_work += self.schedule.line.waiting
                return
            self.schedule.begin(batch, now_s)
            ends_s = now_s + self._engine(sum(request.rows for request in batch), now_s)
            heapq.heappush(self._running, Under(ends_s, len(self.batches), now_s, batch))
            self.batches.append(batch)

    def _end(self) -> None:
        now_s, _, began_s, batch = heapq.heappop(self._running)
        self._expire(now_s)
        taken_s = now_s - began_s
        self.schedule.end(batch, engine_s=taken_s, whole_s=taken_s, now_s=now_s, sound=True)
        for request in batch:
            late = now_s > request.expires_at_s
            self.fates.append(Fate(request.arrival, request.expires_at_s if late else now_s, "expired" if late else ""))
        self._begin(now_s)

    def _expire(self, now_s: float) -> None:
        while self._alarms and self._alarms[0][0] <= now_s:
            _, _, request = heapq.heappop(self._alarms)
            if self.schedule.line.discard(request):
                self.fates.append(Fate(request.arrival, request.expires_at_s, "expired"))

    def _refuse(self, request: Request, refusal: Refused, now_s: float) -> None:
        self.fates.append(Fate(request.arrival, now_s, refusal.reason, refusal.retry_after_s))


def known(max_rows: int, engine: EngineTime) -> ServiceTimes:
    """Times as a warm-up on an idle engine leaves them."""
    times = ServiceTimes(max_rows)
    for size in times.sizes:
        times.measured(size, engine(size, 0.0))
    return times


def poisson(
    rate: float, seconds: float, *, deadline_s: float, rng: random.Random, from_s: float = 0.0, level: int = 2
) -> list[Arrival]:
    """Open loop: requests come whatever becomes of those before them."""
    arrivals = []
    at_s = from_s + rng.expovariate(rate)
    while at_s < from_s + seconds:
        arrivals.append(Arrival(at_s, deadline_s, level))
        at_s += rng.expovariate(rate)
    return arrivals


def jittered(curve: Callable[[int], float], rng: random.Random, *, spread: float = 0.1) -> EngineTime:
    """A curve with the noise of a machine: a log-normal one, and a pause of ten runs in one of two hundred."""

    def engine(rows: int, _: float) -> float:
        pause = 10.0 if rng.random() < 0.005 else 1.0
        return curve(rows) * rng.lognormvariate(0.0, spread) * pause

    return engine


def latencies_s(fates: Iterable[Fate]) -> list[float]:
    return sorted(fate.end_s - fate.arrival.at_s for fate in fates if fate.answered)


def merged(*loads: list[Arrival]) -> list[Arrival]:
    return list(heapq.merge(*loads))
