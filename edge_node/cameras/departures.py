"""The record of every picture that leaves the box: a line of JSON each, in a file that is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import msgspec

from runtime.links.process.within import within

log = logging.getLogger(__name__)

FILE = "departures.jsonl"
FILE_BYTES = 16 << 20
KEPT_FILES = 4
VIEW_S = 60.0
_EVERY_S = 0.5
_MODE = 0o640
_MOST_WAITING = 100_000


class Departure(msgspec.Struct, frozen=True):
    """`what`: `escalate`, `audit`, `late` or `snapshot`, a picture each; `view` or `clip`, all that somebody got of it
    within a minute, in so many `pieces`. `about` is the event, the request or the clip; `to` a URL, an address, or
    `mqtt`. `at_s` is unix time, `sha256` that of one picture's bytes."""

    at_s: float
    camera: str
    what: str
    about: str
    to: str
    bytes: int
    pieces: int = 1
    sha256: str = ""


_Key = tuple[str, str, str, str]
"""camera, what, about, to."""


class _Viewing(msgspec.Struct):
    """Since when somebody looks, and what has gone to him."""

    since_s: float
    pieces: int = 0
    bytes: int = 0


class Departures:
    """Written soon, in a thread. Where the disk refuses, lines wait; they go to the log when too many do, or the end
    comes first."""

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        self._path = directory / FILE
        self._wall = wall
        self._waiting: list[bytes] = []
        self._views: dict[_Key, _Viewing] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fails = self._closing = self._closed = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_writing())

    async def close(self) -> None:
        """What waits is written once more; what the disk still refuses goes to the log. What leaves after that, by who
        ends later, is written at once."""
        for key in list(self._views):
            self._end_view(key)
        self._closing = True
        self._news.set()
        if self._task is not None:
            await self._task
        self._tell_log(self._waiting)
        self._closed = True

    def note(self, camera: str, what: str, about: str, to: str, picture: bytes) -> None:
        """Does not block."""
        sha256 = hashlib.sha256(picture).hexdigest()
        self._put(Departure(self._wall(), camera, what, about, to, len(picture), sha256=sha256))

    def viewed(self, camera: str, what: str, about: str, to: str, size: int) -> None:
        """One of many pieces that somebody gets one after another. Does not block."""
        key = (camera, what, about, to)
        viewing = self._views.setdefault(key, _Viewing(self._wall()))
        viewing.pieces += 1
        viewing.bytes += size
        if self._closed or self._is_over(viewing):
            self._end_view(key)

    def _is_over(self, viewing: _Viewing) -> bool:
        """Also where the clock was set back."""
        return not 0.0 <= self._wall() - viewing.since_s < VIEW_S

    def _end_view(self, key: _Key) -> None:
        viewing = self._views.pop(key)
        self._put(Departure(viewing.since_s, *key, bytes=viewing.bytes, pieces=viewing.pieces))

    def _put(self, departure: Departure) -> None:
        line = msgspec.json.encode(departure) + b"\n"
        if self._closed:
            self._write_now(line)
            return
        self._waiting.append(line)
        self._news.set()

    def _write_now(self, line: bytes) -> None:
        try:
            self._append(line)
        except OSError:
            self._tell_log([line])

    async def _keep_writing(self) -> None:
        while not self._closing:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._news.wait(), VIEW_S)
            self._news.clear()
            for key in [key for key, viewing in self._views.items() if self._is_over(viewing)]:
                self._end_view(key)
            await self._write()
            await asyncio.sleep(0.0 if self._closing else _EVERY_S)
        await self._write()

    async def _write(self) -> None:
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            await asyncio.to_thread(self._append, b"".join(lines))
        except OSError as error:
            if not self._fails:
                log.warning("%s cannot be written (%s): its lines wait", self._path, error)
            self._fails = True
            self._waiting = [*lines, *self._waiting]
            self._tell_log(self._waiting[:-_MOST_WAITING])
            self._waiting = self._waiting[-_MOST_WAITING:]
            self._news.set()
        else:
            self._fails = False

    def _tell_log(self, lines: list[bytes]) -> None:
        for line in lines:
            log.warning("a picture has left: %s", line.decode().strip())

    def _append(self, lines: bytes) -> None:
        """All of them or, as far as the file system can take them back, none."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size + len(lines) > FILE_BYTES:
                self._rotate()
        # Unbuffered: what a full disk did not take must not be written once more when the file is closed.
        with self._path.open("ab+", buffering=0) as file:
            os.fchmod(file.fileno(), _MODE)
            before = file.seek(0, os.SEEK_END)
            if _is_torn(file, before):
                lines = b"\n" + lines
            try:
                left = memoryview(lines)
                while left:
                    left = left[file.write(left) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(before)
                raise

    def _rotate(self) -> None:
        for number in range(KEPT_FILES - 1, 0, -1):
            older = self._path.with_suffix(f".{number}.jsonl")
            newer = self._path if number == 1 else self._path.with_suffix(f".{number - 1}.jsonl")
            if newer.exists():
                newer.replace(older)


def _is_torn(file: FileIO, size: int) -> bool:
    """A power cut may have left half a line: readers lose that one, not the next as well."""
    return size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
