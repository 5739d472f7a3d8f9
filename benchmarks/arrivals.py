"""The open loop: requests come when they come, whether or not those before them were answered."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.load import Caller, LoadError, Target

Floats = npt.NDArray[np.float64]


class Came(NamedTuple):
    """What became of every request, in the order of arrival.

    When it came, in seconds from the beginning; how long it took from then to the last byte of its answer, in ms; how
    much of that had gone by when it was sent; and its status.
    """

    at_s: Floats
    latency_ms: Floats
    unsent_ms: Floats
    status: npt.NDArray[np.int64]


def poisson(rate: float, seconds: float, rng: np.random.Generator) -> Floats:
    """Times of arrival, in seconds: independent of each other, `rate` a second in the mean."""
    gaps_s = rng.exponential(1.0 / rate, int(rate * seconds * 1.5) + 16)
    times_s = np.cumsum(gaps_s)
    return times_s[times_s < seconds]


async def arrive(target: Target, at_s: Floats) -> Came:
    """Sends one request at each of the times, on a connection that is free or a new one. Waits for all answers.

    Raises LoadError where a connection breaks.
    """
    loop = asyncio.get_running_loop()
    asked = _Asked(len(at_s), loop.create_future())
    free: list[_Caller] = []
    callers: list[_Caller] = []
    begun_s = time.perf_counter()
    for at, due_s in enumerate(at_s):
        wait_s = begun_s + due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if not free:
            caller = (await loop.create_connection(lambda: _Caller(free, asked), target.host, target.port))[1]
            callers.append(caller)
            free.append(caller)
        free.pop().ask(at, target.request)
    await asked.ended
    for caller in callers:
        caller.close()
    all_due_s = begun_s + at_s
    return Came(at_s, (asked.answered_s - all_due_s) * 1000.0, (asked.sent_s - all_due_s) * 1000.0, asked.status)


def queue_ms(at_s: Floats, service_s: float) -> Floats:
    """How long each would take, waiting and service, at one server that takes `service_s` for each, in ms.

    With Poisson arrivals that is M/D/1; the recursion is Lindley's (1952).
    """
    free_s, took = 0.0, []
    for at in at_s:
        free_s = max(free_s, at) + service_s
        took.append((free_s - at) * 1000.0)
    return np.array(took)


class _Asked:
    """When each request was sent, when the last byte of its answer came, and its status. No object is kept of each: to
    wait for thousands in the end would take so long that answers lie about meanwhile."""

    def __init__(self, count: int, ended: asyncio.Future[None]) -> None:
        self.sent_s = np.zeros(count)
        self.answered_s = np.zeros(count)
        self.status = np.zeros(count, np.int64)
        self.ended = ended
        self._left = count

    def answer(self, at: int, status: int, now_s: float) -> None:
        self.answered_s[at], self.status[at] = now_s, status
        self._left -= 1
        if not self._left and not self.ended.done():
            self.ended.set_result(None)

    def fail(self, what: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(LoadError(what))


class _Caller(Caller):
    """Puts itself among the free ones when its answer is there."""

    def __init__(self, free: list[_Caller], asked: _Asked) -> None:
        super().__init__()
        self._free = free
        self._asked = asked
        self._at = -1

    def ask(self, at: int, request: bytes) -> None:
        assert self.transport is not None
        self._at, self._asked.sent_s[at] = at, time.perf_counter()
        self.transport.write(request)

    def answered(self, status: int, now_s: float) -> None:
        at, self._at = self._at, -1
        if at >= 0:
            self._asked.answer(at, status, now_s)
        self._free.append(self)

    def failed(self, what: str) -> None:
        if self in self._free:
            self._free.remove(self)
        if self._at >= 0:
            self._asked.fail(what)
