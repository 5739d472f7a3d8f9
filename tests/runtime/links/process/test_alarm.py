"""Many who wait, one timer: each is called at its time, unless it was cleared before."""

from __future__ import annotations

import asyncio
import random
import time

from runtime.links.process.alarm import Alarm


async def test_each_is_called_once_at_its_time_and_who_was_cleared_never() -> None:
    rung, ended = dict[int, float](), asyncio.Event()

    def ring(item: int) -> None:
        rung[item] = time.monotonic()
        if item == 49:
            ended.set()

    alarm: Alarm[int] = Alarm(ring)
    begun_s = time.monotonic()
    order = random.Random(0).sample(range(50), 50)
    for item in order:
        alarm.set(item, begun_s + item / 200)
    for item in range(0, 50, 2):
        alarm.clear(item)
    alarm.clear(99)
    await asyncio.wait_for(ended.wait(), 10)
    assert [*rung] == [*range(1, 50, 2)]
    assert all(at_s >= begun_s + item / 200 for item, at_s in rung.items())


async def test_who_is_set_or_cleared_while_it_rings_is_heard_too() -> None:
    rung, ended = list[str](), asyncio.Event()

    def ring(item: str) -> None:
        rung.append(item)
        if item == "first":
            alarm.clear("second")
            alarm.set("third", time.monotonic() + 0.02)
        if item == "third":
            ended.set()

    alarm: Alarm[str] = Alarm(ring)
    alarm.set("first", 0.0)
    alarm.set("second", 0.0)
    await asyncio.wait_for(ended.wait(), 10)
    assert rung == ["first", "third"]


async def test_a_time_that_is_moved_counts_as_it_is() -> None:
    rung, ended = list[str](), asyncio.Event()

    def ring(item: str) -> None:
        rung.append(item)
        ended.set()

    alarm: Alarm[str] = Alarm(ring)
    alarm.set("a", time.monotonic() + 0.01)
    alarm.set("a", time.monotonic() + 60)
    alarm.set("b", time.monotonic() + 60)
    alarm.set("b", time.monotonic() + 0.02)
    await asyncio.wait_for(ended.wait(), 10)
    assert rung == ["b"]
    alarm.stop()


async def test_a_clock_that_lags_behind_the_loops_rings_nobody_early() -> None:
    now_s, rung = 100.0, list[str]()
    alarm: Alarm[str] = Alarm(rung.append, lambda: now_s)
    alarm.set("a", 100.02)
    await asyncio.sleep(0.1)
    assert rung == []
    now_s = 100.1
    await asyncio.sleep(0.1)
    assert rung == ["a"]


async def test_nobody_is_called_once_it_was_stopped() -> None:
    rung: list[str] = []
    alarm: Alarm[str] = Alarm(rung.append)
    alarm.set("a", time.monotonic() + 0.02)
    alarm.stop()
    await asyncio.sleep(0.1)
    assert rung == []
