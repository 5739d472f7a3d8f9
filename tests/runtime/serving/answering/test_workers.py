"""Work off the event loop: bounded, under a deadline, taken back when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.serving.answering.workers import Workers


def soon(milliseconds: float = 10_000) -> Deadline:
    return Deadline.after(milliseconds, now_s=time.monotonic())


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(threads=1, max_waiting=2)
    yield workers
    workers.close()


async def test_results_and_errors_come_back_from_another_thread(workers: Workers) -> None:
    here = threading.get_ident()
    assert await workers.run(threading.get_ident, soon()) != here

    def refuse() -> None:
        raise FoothillError("bad_image", "no")

    with pytest.raises(FoothillError, match="no"):
        await workers.run(refuse, soon())


async def test_too_much_waiting_work_is_shed_and_room_comes_back(workers: Workers) -> None:
    go = threading.Event()
    tasks = [asyncio.create_task(workers.run(lambda: go.wait(10), soon())) for _ in range(5)]
    await asyncio.sleep(0)
    shed = [task for task in tasks if task.done()]
    assert [task.exception() for task in shed if isinstance(task.exception(), FoothillError)] == [
        task.exception() for task in shed
    ]
    assert len(shed) == 2
    go.set()
    assert await asyncio.gather(*(task for task in tasks if task not in shed)) == [True] * 3
    assert await workers.run(lambda: "again", soon()) == "again"


async def test_work_that_nobody_waits_for_any_more_never_begins(workers: Workers) -> None:
    go, begun = threading.Event(), threading.Event()
    first = asyncio.create_task(workers.run(lambda: go.wait(10), soon()))
    gone = asyncio.create_task(workers.run(begun.set, soon()))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    with pytest.raises(FoothillError) as refused:
        await workers.run(begun.set, soon(10))
    assert refused.value.code == "deadline_exceeded"
    go.set()
    await first
    assert await workers.run(lambda: "last", soon()) == "last"
    assert not begun.is_set()
