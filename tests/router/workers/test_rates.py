"""Limits of a whole router, leased to its workers."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from contracts.rates import Rate
from router.workers.frames import Lease, Leased
from router.workers.rates import KEPT_S, LeasedRate, Rates
from runtime.links.access.tokens import Unleased


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class House:
    """A control process's rates and some workers' leases, without processes between them."""

    def __init__(self, per_s: float, workers: int) -> None:
        self.clock, self.rates = Clock(), Rates()
        self.asked = 0
        self.leased = [LeasedRate("kiosk", per_s, workers, self._ask, self.clock) for _ in range(workers)]

    async def _ask(self, name: str, per_s: float, count: int) -> Leased:
        self.asked += 1
        await asyncio.sleep(0)
        return self.rates.lease(Lease(0, name, per_s, count), self.clock())

    async def take(self, worker: int) -> float:
        """As `runtime.links.access.admission.Admission.check` does."""
        try:
            return self.leased[worker].take(self.clock())
        except Unleased as error:
            await error.ask()
        return await self.take(worker)


steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.001, 0.02, 0.3, 1.0])), max_size=200)


@given(st.sampled_from([0.5, 1.0, 7.0, 100.0, 5000.0]), steps)
def test_all_workers_together_take_no_more_than_the_limit(per_s: float, steps: list[tuple[int, float]]) -> None:
    async def story() -> None:
        house, began_s, taken = House(per_s, 3), Clock.now_s, 0
        for worker, pause_s in steps:
            house.clock.now_s += pause_s
            taken += await house.take(worker) == 0.0
            # A rate allows what comes in a second at once; what is leased may be used a little later.
            most = max(1.0, per_s) + per_s * (house.clock.now_s - began_s + KEPT_S)
            assert taken <= most + 1e-6

    asyncio.run(story())


@given(st.sampled_from([0.5, 1.0, 3.0, 19.0]), steps)
def test_small_limits_lose_nothing_by_being_shared(per_s: float, steps: list[tuple[int, float]]) -> None:
    """Leases of one: whatever one process would allow, three do."""

    async def story() -> None:
        house, alone = House(per_s, 3), Rate(per_s)
        for worker, pause_s in steps:
            house.clock.now_s += pause_s
            allowed = alone.take(house.clock()) == 0.0
            taken = await house.take(worker) == 0.0
            assert taken or not allowed

    asyncio.run(story())


async def test_one_asks_for_all_who_wait_at_a_worker() -> None:
    house = House(1000.0, 2)
    told = await asyncio.gather(*(house.take(0) for _ in range(20)))
    assert told == [0.0] * 20
    assert house.asked == 1


async def test_a_refusal_is_not_asked_for_again_before_its_time() -> None:
    house = House(1.0, 2)
    assert await house.take(0) == 0.0
    waits_s = [await house.take(1) for _ in range(5)]
    assert all(0.0 < wait_s <= 1.0 for wait_s in waits_s)
    assert house.asked == 2
    house.clock.now_s += 1.0
    assert await house.take(1) == 0.0


def test_another_limit_for_a_name_begins_anew() -> None:
    rates = Rates()
    assert rates.of("a", 1.0) is rates.of("a", 1.0)
    first = rates.of("a", 1.0)
    assert rates.of("a", 2.0) is not first
