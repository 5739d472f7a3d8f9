"""How late the event loop of this process gets to what is there for it."""

from __future__ import annotations

import asyncio
import time

_EVERY_S = 0.02
_MEMORY = 0.98
"""A long lag counts half as much 0.7 s later."""


class LoopLag:
    """About the longest of the last second, in `seconds`: every 20 ms an alarm rings, and is so late.

    So long a request may lie in the kernel before its time counts here; to its caller it counts from before.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """On the running loop."""
        self._set(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not by the loop's own clock: uvloop's stands still while callbacks run.
        self._alarm = loop.call_later(_EVERY_S, self._ring, loop, time.monotonic() + _EVERY_S)

    def _ring(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self.seconds = max(time.monotonic() - due_s, _MEMORY * self.seconds)
        self._set(loop)
