"""Limits that hold for a whole router: its control process keeps them, and leases to workers what they use at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from contracts.rates import Rate
from router.workers.frames import Lease, Leased
from runtime.links.access.tokens import Unleased

LEASED_S = 0.05
"""So much of what may happen in that time a worker gets at once, divided among all."""
KEPT_S = 0.5
"""For so long it may keep what it does not use."""
Ask = Callable[[str, float, int], Awaitable[Leased]]
"""For so many requests of a name that may send so many a second."""


class Rates:
    """Of the control process: one rate a name, whoever takes from it."""

    def __init__(self) -> None:
        self._rates: dict[str, tuple[float, Rate]] = {}

    def of(self, name: str, per_s: float) -> Rate:
        """Another limit for a name begins anew."""
        known = self._rates.get(name)
        if known is None or known[0] != per_s:
            known = self._rates[name] = (per_s, Rate(per_s))
        return known[1]

    def lease(self, asked: Lease, now_s: float) -> Leased:
        """As many as there are of those that it asks for."""
        rate = self.of(asked.name, asked.per_s)
        for granted in range(asked.count):
            wait_s = rate.take(now_s)
            if wait_s:
                return Leased(asked.question, granted, wait_s)
        return Leased(asked.question, asked.count, 0.0)


class LeasedRate:
    """A worker's part of a rate of `per_s`, with the face of `contracts.rates.Rate`. It asks for more only when it has
    none, once for all who wait. `clock` is that of `take`."""

    def __init__(self, name: str, per_s: float, workers: int, ask: Ask, clock: Callable[[], float]) -> None:
        self._name = name
        self._per_s = per_s
        self._count = max(1, math.floor(per_s * LEASED_S / workers))
        self._ask = ask
        self._clock = clock
        self._left = 0
        self._until_s = self._refused_until_s = -math.inf
        self._asking: asyncio.Task[None] | None = None

    def take(self, now_s: float) -> float:
        """Raises Unleased where the control process has to be asked first."""
        if self._left and now_s < self._until_s:
            self._left -= 1
            return 0.0
        if now_s < self._refused_until_s:
            return self._refused_until_s - now_s
        raise Unleased(self._more)

    async def _more(self) -> None:
        if self._asking is None:
            self._asking = asyncio.create_task(self._lease())
        await asyncio.shield(self._asking)

    async def _lease(self) -> None:
        try:
            leased = await self._ask(self._name, self._per_s, self._count)
            now_s = self._clock()
            self._left, self._until_s = leased.granted, now_s + KEPT_S
            if not leased.granted:
                self._refused_until_s = now_s + leased.wait_s
        finally:
            self._asking = None
