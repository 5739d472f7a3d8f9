"""Load on a node: so many requests always under way (closed loop), or so many a second whatever comes back (open)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from contracts.acceptance import Point
from hil.latencies import Latencies

REFUSED = frozenset({429, 503, 504})
"""Told to come later: no success, and no fault of a node that has too much to do."""

_PAUSE_S = 0.05
_GIVE_UP = 40
_MOST_AT_ONCE = 256


class Shot(NamedTuple):
    """One request. `status` 0: no answer came. `said` is why it was no success, `digest` the bundle that answered."""

    status: int
    ms: float
    phases_ms: Mapping[str, float]
    said: str = ""
    digest: str = ""


Shoot = Callable[[], Awaitable[Shot]]


class Tally:
    """What came of one load. `faults` keeps what the first failures said."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.refused = self.failed = 0
        self.faults: list[str] = []
        self.digests: Counter[str] = Counter()
        self.seconds = self.client_share = 0.0
        self._phases: dict[str, float] = {}

    @property
    def answered(self) -> int:
        return self.latencies.count

    @property
    def throughput(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    def take(self, shot: Shot, ms: float) -> None:
        """`ms` is what the caller waited, which in an open loop begins when the request was due."""
        if shot.status == 200:
            self.latencies.add(ms)
            self.digests[shot.digest] += 1
            for phase, took_ms in shot.phases_ms.items():
                self._phases[phase] = self._phases.get(phase, 0.0) + took_ms
            return
        if shot.status in REFUSED:
            self.refused += 1
        else:
            self.failed += 1
        if len(self.faults) < 3:
            self.faults.append(f"{shot.status or 'no answer'}: {shot.said}")

    def phases_ms(self) -> dict[str, float]:
        return {phase: round(total / max(1, self.answered), 4) for phase, total in sorted(self._phases.items())}

    def point(self, loop: Literal["closed", "open"], concurrency: int, rate: float) -> Point:
        p50, p95, p99 = (round(self.latencies.quantile(percent), 4) for percent in (50, 95, 99))
        return Point(
            loop=loop,
            concurrency=concurrency,
            rate=round(rate, 3),
            throughput=round(self.throughput, 3),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            answered=self.answered,
            refused=self.refused,
            failed=self.failed,
            client_share=round(self.client_share, 3),
            phases_ms=dict(list(self.phases_ms().items())[:16]),
        )


class Timed(msgspec.Struct, frozen=True):
    wall_s: float
    cpu_s: float


async def closed_loop(shoot: Shoot, *, concurrency: int, until: Callable[[], bool]) -> Tally:
    """Keeps `concurrency` requests under way until `until` says so, or the node fails again and again."""
    tally, streak = Tally(), [0]
    began = _now()

    async def worker() -> None:
        while not until() and streak[0] < _GIVE_UP:
            shot = await shoot()
            tally.take(shot, shot.ms)
            streak[0] = 0 if shot.status == 200 else streak[0] + 1
            if shot.status != 200:
                await asyncio.sleep(_PAUSE_S)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return _ended(tally, began)


async def open_loop(shoot: Shoot, *, rate: float, seconds: float, rng: random.Random) -> Tally:
    """Requests at random moments, `rate` a second on the mean (a Poisson process).

    One that is late to start, since others are under way, has waited all the same: latencies count from when it was
    due, so that a node that stalls cannot hide how many would have waited (G. Tene, "How NOT to measure latency").
    """
    tally, began = Tally(), _now()
    gate = asyncio.Semaphore(_MOST_AT_ONCE)
    waiting: set[asyncio.Task[None]] = set()

    async def one(due_s: float) -> None:
        async with gate:
            shot = await shoot()
        tally.take(shot, (time.monotonic() - due_s) * 1000.0)

    due_s = began.wall_s
    try:
        while (due_s := due_s + rng.expovariate(rate)) < began.wall_s + seconds:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            task = asyncio.create_task(one(due_s))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()
    return _ended(tally, began)


def lasting(seconds: float, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """True once `seconds` have gone by."""
    end_s = clock() + seconds
    return lambda: clock() >= end_s


def counting(requests: int) -> Callable[[], bool]:
    """True once it was asked `requests` times: one worker then sends so many."""
    left = [requests]

    def done() -> bool:
        left[0] -= 1
        return left[0] < 0

    return done


def _now() -> Timed:
    return Timed(time.monotonic(), time.process_time())


def _ended(tally: Tally, began: Timed) -> Tally:
    now = _now()
    tally.seconds = now.wall_s - began.wall_s
    tally.client_share = (now.cpu_s - began.cpu_s) / max(tally.seconds, 1e-9)
    return tally
