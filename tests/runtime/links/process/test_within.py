"""Waiting with a bound: what comes, what does not, and a cancellation in the moment in which it comes."""

from __future__ import annotations

import asyncio

import pytest

from runtime.links.process.within import within


async def test_what_comes_in_time_is_handed_on() -> None:
    assert await within(asyncio.sleep(0, "here"), 5.0) == "here"


async def test_what_does_not_come_is_given_up() -> None:
    gone = asyncio.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            gone.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(long(), 0.01)
    assert gone.is_set()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_is_no_wait(seconds: float) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await within(asyncio.Event().wait(), seconds)


async def test_who_is_cancelled_as_it_comes_is_cancelled() -> None:
    """So ends a task that loops over it, whatever happens at the same time."""
    news = asyncio.Event()
    loops = 0

    async def loop() -> None:
        nonlocal loops
        while True:
            await within(news.wait(), 5.0)
            news.clear()
            loops += 1

    for both in (True, False):
        task = asyncio.create_task(loop())
        await asyncio.sleep(0.01)
        news.set()
        if not both:
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1.0)
        assert done
        assert task.cancelled()
        news.clear()
