"""The picture that people see of a camera now: drawn once for all who look, and not at all where nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from edge_node.cameras.marks import Mark, drawn
from edge_node.cameras.observers.found import things_in
from edge_node.cameras.privacy import PrivacyConfig, hide
from edge_node.cameras.sources.shot import Shot
from edge_node.pipelines import Looked

WIDEST, QUALITY = 1280, 80


class Look(NamedTuple):
    """A JPEG of what was taken `at_s`; `number` rises with each."""

    number: int
    at_s: float
    jpeg: bytes


class _Shown(NamedTuple):
    """`looked` is the last look at this scene, None where there was none."""

    shot: Shot
    marks: Sequence[Mark]
    looked: Looked | None


class Live:
    """`show` what there is to see; `look` at it, without what `privacy` hides. `workers` draw."""

    def __init__(self, workers: Executor, privacy: PrivacyConfig) -> None:
        self._workers = workers
        self._privacy = privacy
        self._number = 0
        self._shown: _Shown | None = None
        self._news = asyncio.Event()
        self._drawing = asyncio.Lock()
        self._last: Look | None = None

    def show(self, shot: Shot, marks: Sequence[Mark], looked: Looked | None) -> None:
        """`looked` None: nothing has moved since the last one, as far as the gate watches. Where things are hidden that
        a detector finds, it is not shown then: they may be where nobody has looked."""
        if looked is None and self._privacy.names_labels and self._shown is not None and self._shown.looked is not None:
            return
        self._number += 1
        self._shown = _Shown(shot, marks, looked or (self._shown.looked if self._shown is not None else None))
        self._news.set()

    async def look(self, after: int = 0) -> Look:
        """The newest, once there is one with a number above `after`."""
        while self._number <= after or self._shown is None:
            self._news.clear()
            await self._news.wait()
        async with self._drawing:
            if self._last is not None and self._last.number > after and self._last.number == self._number:
                return self._last
            number, shown = self._number, self._shown
            loop = asyncio.get_running_loop()
            jpeg = await loop.run_in_executor(self._workers, _jpeg, shown, self._privacy)
            self._last = Look(number, shown.shot.at_s, jpeg)
            return self._last

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever to be seen."""
        return self._shown is None


def _jpeg(shown: _Shown, privacy: PrivacyConfig) -> bytes:
    picture = shown.shot.picture("rgb")
    if privacy.hides:
        picture = hide(picture, privacy, things_in(shown.looked, shown.shot.size))
    return drawn(picture, shown.marks, widest=WIDEST, quality=QUALITY)
