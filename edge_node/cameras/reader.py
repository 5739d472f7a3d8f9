"""The thread of one camera: it opens the source, reads it, and opens it again, for as long as the camera is wanted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.sources.source import Facts, Source
from edge_node.cameras.sources.stillness import Stillness
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.states import Event, pause_s

log = logging.getLogger(__name__)


class Pace(NamedTuple):
    """Every `stride`-th picture is for the model, and no more than `max_fps` a second; 0: all of them."""

    stride: int = 1
    max_fps: float = 0.0


class Seen(msgspec.Struct):
    """What the thread counts: it alone writes, anybody may read. `attempts` to open the source; `received_bytes` as
    pictures were encoded."""

    attempts: int = 0
    decoded: int = 0
    corrupt: int = 0
    skipped: int = 0
    passed: int = 0
    received_bytes: int = 0


class Hears(Protocol):
    """Told by the thread, of whatever it sees."""

    def happened(self, event: Event, why: str, facts: Facts | None) -> None: ...

    def took(self, shot: Shot) -> None:
        """A picture for the model. Where all of them are wanted, it may wait."""
        ...


class Reader:
    """`open_source` blocks, and gets a function that counts what is corrupt. Pauses between attempts grow up to
    `longest_pause_s`; a source has to have shown a picture for them to begin anew."""

    def __init__(
        self,
        name: str,
        open_source: Callable[[Callable[[], None]], Source],
        hears: Hears,
        stillness: Callable[[], Stillness],
        pace: Pace,
        *,
        longest_pause_s: float,
        rng: random.Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open = open_source
        self._hears = hears
        self._stillness = stillness
        self._pace = pace
        self._longest_pause_s = longest_pause_s
        self._rng = rng
        self._clock = clock
        self._stopped = threading.Event()
        self._failures = 0
        self._next_s = 0.0
        self.seen = Seen()
        self._thread = threading.Thread(target=self._live, name=f"camera-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; the thread ends with what it reads now, after a stall at the latest."""
        self._stopped.set()

    def join(self, timeout_s: float) -> bool:
        """Blocks. Whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stopped(self) -> threading.Event:
        return self._stopped

    def _live(self) -> None:
        while not self._stopped.is_set():
            trouble = self._read_once()
            if self._stopped.is_set():
                break
            event: Event = "lost" if trouble.kind == "lost" else trouble.kind
            self._hears.happened(event, trouble.why, None)
            if event == "ended":
                return
            self._stopped.wait(pause_s(event, self._failures, self._longest_pause_s, self._rng))
            self._failures += 1
        self._hears.happened("stopped", "", None)

    def _read_once(self) -> Trouble:
        """One life of the source, and how it ended."""
        self.seen.attempts += 1
        try:
            source = self._open(self._count_corrupt)
            before = self.seen.received_bytes
            try:
                self._read(source, before)
            finally:
                self.seen.received_bytes = before + source.received_bytes
                source.close()
        except Trouble as trouble:
            return trouble
        except Exception as error:
            log.exception("%s: a defect", self._thread.name)
            return Trouble("lost", f"{type(error).__name__}: {error}")
        return Trouble("lost", "")

    def _read(self, source: Source, before: int) -> None:
        stillness, last = self._stillness(), ""
        for shot in source.shots(self._stopped):
            self.seen.decoded += 1
            self.seen.received_bytes = before + source.received_bytes
            if not self._is_due(shot):
                self.seen.skipped += 1
                continue
            self._failures = 0
            look = stillness.look(shot.luma(), self._clock())
            if look != last:
                last = look
                self._hears.happened(look, _WHY[look], source.facts)
            self.seen.passed += 1
            self._hears.took(shot)

    def _is_due(self, shot: Shot) -> bool:
        """Of a camera that is quicker than `max_fps`, the pictures are evenly spread."""
        if shot.number % self._pace.stride:
            return False
        if not self._pace.max_fps:
            return True
        between_s = 1.0 / self._pace.max_fps
        if shot.at_s < self._next_s - between_s * _EARLY and self._next_s - shot.at_s <= between_s:
            return False
        late = not 0.0 <= shot.at_s - self._next_s < between_s
        self._next_s = (shot.at_s if late else self._next_s) + between_s
        return True

    def _count_corrupt(self) -> None:
        self.seen.corrupt += 1


_EARLY = 0.1
_WHY = {
    "picture": "",
    "frozen": "its picture does not change by a single bit: restart it, or look at its encoder",
    "dark": "its picture is black: is the lens covered, or the light out?",
}
