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

    When it came, in seconds from the beginning; how long it took from then to its last byte, in ms; and its status.
    """

    at_s: Floats
    latency_ms: Floats
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
    free: list[_Caller] = []
    ended: list[asyncio.Future[tuple[float, int]]] = []
    callers: list[_Caller] = []
    begun_s = time.perf_counter()
    for due_s in at_s:
        wait_s = begun_s + due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if not free:
            caller = (await loop.create_connection(lambda: _Caller(free), target.host, target.port))[1]
            callers.append(caller)
            free.append(caller)
        ended.append(free.pop().ask(target.request))
    answered = await asyncio.gather(*ended)
    for caller in callers:
        caller.close()
    latency_ms = [(at - begun_s - due_s) * 1000.0 for (at, _), due_s in zip(answered, at_s, strict=True)]
    return Came(at_s, np.array(latency_ms), np.array([status for _, status in answered]))


def queue_ms(at_s: Floats, service_s: float) -> Floats:
    """How long each would take, waiting and service, at one server that takes `service_s` for each, in ms.

    With Poisson arrivals that is M/D/1; the recursion is Lindley's (1952).
    """
    free_s, took = 0.0, []
    for at in at_s:
        free_s = max(free_s, at) + service_s
        took.append((free_s - at) * 1000.0)
    return np.array(took)


class _Caller(Caller):
    """Puts itself among the free ones when its answer is there."""

    def __init__(self, free: list[_Caller]) -> None:
        super().__init__()
        self._free = free
        self._ended: asyncio.Future[tuple[float, int]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[float, int]]:
        """When the last byte of the answer came, and its status."""
        assert self.transport is not None
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._ended

    def answered(self, status: int, now_s: float) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result((now_s, status))
        self._free.append(self)

    def failed(self, what: str) -> None:
        if self in self._free:
            self._free.remove(self)
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(LoadError(what))
