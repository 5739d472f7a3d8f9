"""The newest picture of a camera, handed from its thread to the event loop: one that nobody took gives way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """`put` from one thread, `take` on `loop`. `gave_way` is called, in that thread, for each that nobody took."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gave_way: Callable[[T], None]) -> None:
        self._loop = loop
        self._gave_way = gave_way
        self._lock = threading.Lock()
        self._newest: T | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether the taker has nothing to do, and will have until the next `put`."""
        return self._waiting is not None

    def put(self, newest: T) -> None:
        with self._lock:
            if self._newest is not None:
                self._gave_way(self._newest)
            self._newest = newest
            waiting, self._waiting = self._waiting, None
        if waiting is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_wake, waiting)

    async def take(self) -> T:
        """Waits for one that is newer than the last one taken. For one taker at a time."""
        while True:
            with self._lock:
                newest, self._newest = self._newest, None
                if newest is not None:
                    return newest
                waiting = self._waiting = self._loop.create_future()
            await waiting


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
