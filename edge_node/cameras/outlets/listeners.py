"""Those who listen over HTTP: each has a line of its own, of bounded length."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from edge_node.cameras.feed import Feed, Said

Wanted = Callable[[Said], bool]


class Line:
    """What one listener has still to get. One that is slow loses the oldest, and `lost` counts them; with
    `keeps_latest` it gets the newest of each event and of each state instead of all."""

    def __init__(
        self,
        feed: Feed,
        wanted: Wanted,
        *,
        missed: Sequence[Said] = (),
        most: int = 1000,
        keeps_latest: bool = False,
    ) -> None:
        self._feed = feed
        self._missed = missed
        self._wanted = wanted
        self._keeps_latest = keeps_latest
        self._waiting: deque[Said] = deque(maxlen=most)
        self._news = asyncio.Event()
        self.lost = 0

    def __enter__(self) -> Line:
        """From now on; what was missed and what stands is heard first."""
        for said in sorted((*self._missed, *self._feed.standing), key=lambda said: said.number):
            self._hear(said)
        self._feed.listeners.append(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.listeners.remove(self._hear)

    async def next(self) -> Said:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def _hear(self, said: Said) -> None:
        if not self._wanted(said):
            return
        if self._keeps_latest:
            key = _about(said)
            older = next((other for other in self._waiting if _about(other) == key), None)
            if older is not None:
                self._waiting.remove(older)
        if len(self._waiting) == self._waiting.maxlen:
            self.lost += 1
        self._waiting.append(said)
        self._news.set()


def _about(said: Said) -> tuple[str, str, str]:
    return said.camera, said.kind, getattr(said.message, "event", "")
