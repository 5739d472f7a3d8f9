"""Waiting no longer than so long, without forgetting that one was cancelled."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

T = TypeVar("T")


async def within(awaited: Awaitable[T], seconds: float | None) -> T:
    """Raises asyncio.TimeoutError where it takes longer; None: it may take as long as it likes.

    `asyncio.wait_for` forgets, before Python 3.12, that it was cancelled in the very moment in which what it waits for
    is there (https://github.com/python/cpython/issues/86296): a task that loops over it would never end.
    """
    async with timeout(seconds):
        return await awaited
