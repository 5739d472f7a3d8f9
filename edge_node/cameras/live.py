"""The picture that people see of a camera now: drawn once for all who look, and not at all where nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from edge_node.cameras.marks import Mark, drawn
from edge_node.cameras.sources.shot import Shot

WIDEST, QUALITY = 1280, 80


class Look(NamedTuple):
    """A JPEG of what was taken `at_s`; `number` rises with each."""

    number: int
    at_s: float
    jpeg: bytes


class Live:
    """`show` what there is to see; `look` at it. `workers` draw."""

    def __init__(self, workers: Executor) -> None:
        self._workers = workers
        self._number = 0
        self._shown: tuple[Shot, Sequence[Mark]] | None = None
        self._news = asyncio.Event()
        self._drawing = asyncio.Lock()
        self._last: Look | None = None

    def show(self, shot: Shot, marks: Sequence[Mark]) -> None:
        self._number += 1
        self._shown = (shot, marks)
        self._news.set()

    async def look(self, after: int = 0) -> Look:
        """The newest, once there is one with a number above `after`."""
        while self._number <= after or self._shown is None:
            self._news.clear()
            await self._news.wait()
        async with self._drawing:
            if self._last is not None and self._last.number > after and self._last.number == self._number:
                return self._last
            number, (shot, marks) = self._number, self._shown
            loop = asyncio.get_running_loop()
            jpeg = await loop.run_in_executor(self._workers, _jpeg, shot, marks)
            self._last = Look(number, shot.at_s, jpeg)
            return self._last

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever to be seen."""
        return self._shown is None


def _jpeg(shot: Shot, marks: Sequence[Mark]) -> bytes:
    return drawn(shot.picture("rgb"), marks, widest=WIDEST, quality=QUALITY)
