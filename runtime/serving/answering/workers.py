"""A few threads for what would hold the event loop up: decoding pictures, and reading and writing long JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.process.within import within

T = TypeVar("T")


class Workers:
    """`threads` that work, and a bound on how much may wait for them. `clock` is that of the deadlines."""

    def __init__(self, *, threads: int = 2, max_waiting: int = 64, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._bound = threads + max_waiting
        self._clock = clock
        self._taken = 0

    async def run(self, work: Callable[[], T], deadline: Deadline) -> T:
        """What `work` returns or raises. A cancelled caller takes back work that has not begun.

        Raises FoothillError `overloaded` when too much waits already, `deadline_exceeded` when time is up.
        """
        if self._taken >= self._bound:
            raise FoothillError(
                "overloaded", f"{self._taken} requests wait to be decoded here. Try again, or ask another node."
            )
        loop = asyncio.get_running_loop()
        self._taken += 1
        begun = self._pool.submit(work)
        begun.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        try:
            return await within(asyncio.wrap_future(begun), deadline.left_s(self._clock()))
        except asyncio.TimeoutError:
            raise FoothillError(
                "deadline_exceeded",
                "The deadline passed before the body was decoded. Send a larger Foothill-Deadline-Ms, or less.",
            ) from None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _release(self) -> None:
        self._taken -= 1
