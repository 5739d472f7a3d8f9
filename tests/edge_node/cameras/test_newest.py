"""The newest picture wins, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge_node.cameras.newest import Newest


async def test_the_newest_is_taken_and_the_others_are_counted() -> None:
    gone: list[int] = []
    newest: Newest[int] = Newest(asyncio.get_running_loop(), gone.append)
    for number in range(5):
        newest.put(number)
    assert await newest.take() == 4
    assert len(gone) == 4
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(newest.take(), 0.02)
    newest.put(5)
    assert await newest.take() == 5


async def test_a_thread_and_a_taker_lose_none_that_was_not_counted() -> None:
    gone: list[int] = []
    newest: Newest[int] = Newest(asyncio.get_running_loop(), gone.append)
    total = 20_000
    taken: list[int] = []

    def fill() -> None:
        for number in range(total):
            newest.put(number)

    thread = threading.Thread(target=fill)
    thread.start()
    while not taken or taken[-1] != total - 1:
        taken.append(await asyncio.wait_for(newest.take(), 10))
    await asyncio.to_thread(thread.join)
    assert taken == sorted(set(taken))
    assert len(taken) + len(gone) == total


async def test_who_puts_into_a_loop_that_has_ended_does_not_fail() -> None:
    loop = asyncio.new_event_loop()
    newest: Newest[int] = Newest(loop, lambda _: None)
    waiting = loop.create_task(newest.take())
    loop.call_soon(loop.stop)
    await asyncio.to_thread(loop.run_forever)
    waiting.cancel()
    await asyncio.to_thread(loop.run_until_complete, asyncio.wait({waiting}))
    loop.close()
    newest.put(1)
