"""What the cloud is asked now: it goes on when a camera is changed or goes, and has a while when the node stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

LAST_WORDS_S = 5.5
"""A little more than what a question takes at most, unless its camera gives it longer."""


class Asks:
    """Of all cameras."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, asking: Coroutine[Any, Any, None], ended: Callable[[], None]) -> None:
        """Goes on with `asking`; `ended` is told, however it ends."""
        task = asyncio.create_task(asking)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            ended()
            if not task.cancelled() and task.exception() is not None:
                log.error("a camera's doubt was lost", exc_info=task.exception())

        task.add_done_callback(done)

    async def finish(self) -> None:
        """What is asked now is answered, or waits in the spool, before it returns; what takes longer is given up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
