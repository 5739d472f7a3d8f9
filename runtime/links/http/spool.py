"""Bodies too large to be kept in memory: written to a file as they come, and read from it piece by piece.

The file has no name and goes with its body. Disks block, so that all of it happens on threads of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from contracts.errors import FoothillError

SPOOLED_BYTES = 1 << 20
"""What is longer lies on disk."""
PIECE_BYTES = 1 << 18
MOST_WAITING = 4
"""Pieces that wait for the disk; then the caller waits too."""
_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="spool")


class Spool:
    """One whole body, once it is `stored`. As long as its `len` says."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._file: int | None = None
        try:
            with tempfile.TemporaryFile(buffering=0) as made:
                self._file = os.dup(made.fileno())
        except OSError as error:
            self.end(error)
        else:
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self._size

    async def stored(self) -> None:
        """Until all of it is there. Raises FoothillError `unavailable` where the disk does not take it."""
        await asyncio.shield(self._end)

    async def pieces(self) -> AsyncIterator[bytes]:
        """From its beginning, each time, once it is stored. Raises OSError, and as `stored`."""
        await self.stored()
        loop, at, file = asyncio.get_running_loop(), 0, self._opened()
        while at < self._size:
            piece = await loop.run_in_executor(_THREADS, os.pread, file, PIECE_BYTES, at)
            if not piece:
                raise OSError(f"a body of {self._size} bytes ends on disk after {at}")
            yield piece
            at += len(piece)

    async def write(self, data: bytes | memoryview, at: int) -> None:
        """Raises OSError."""
        loop, rest, file = asyncio.get_running_loop(), memoryview(data), self._opened()
        while rest:
            written = await loop.run_in_executor(_THREADS, os.pwrite, file, rest, at)
            rest, at = rest[written:], at + written

    async def append(self, data: bytes) -> None:
        """More of a body of which nobody has said how long it is. Raises as `stored`."""
        try:
            await self.write(data, self._size)
        except OSError as error:
            raise _not_taken(self._size + len(data), error) from error
        self._size += len(data)

    def end(self, error: OSError | None = None) -> None:
        """All of it is there, or the disk does not take it. Only the first word counts."""
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(_not_taken(self._size, error))
            self._end.exception()  # who has asked for it may be gone

    def _opened(self) -> int:
        if self._file is None:
            raise OSError(errno.ENOENT, "no temporary file could be made")
        return self._file


class Spooling:
    """The place of a body on its way to disk: as `runtime.links.http.bulk.Bulk`, with `left` bytes to come behind the
    `first` ones. `hold` is told when the caller has to wait for the disk, and when no more; `failed` is called, once,
    where the disk does not take it: then nothing more is kept."""

    def __init__(
        self, first: bytes, left: int, scratch: memoryview, *, hold: Callable[[bool], None], failed: Callable[[], None]
    ) -> None:
        self.left = left
        self.body = Spool(len(first) + left)
        self._scratch = scratch
        self._hold = hold
        self._failed = failed
        self._waiting: list[bytes | memoryview] = [first] if first else []
        self._piece = bytearray(min(PIECE_BYTES, left))
        self._filled = self._stored = 0
        self._held = False
        self._dropped = False
        self._writing: asyncio.Task[None] | None = None
        self._go_on()

    def room(self) -> memoryview:
        """Where the next bytes go. Let go of it before the next one is asked for."""
        return self._scratch[: self.left] if self._dropped else memoryview(self._piece)[self._filled :]

    def fill(self, count: int) -> None:
        """So many bytes were put there."""
        self.left -= count
        if self._dropped:
            return
        self._filled += count
        if self._filled == len(self._piece):
            self._waiting.append(memoryview(self._piece))
            self._piece, self._filled = bytearray(min(PIECE_BYTES, self.left)), 0
            self._go_on()

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._dropped = True
        self._waiting.clear()
        self._look()

    def _go_on(self) -> None:
        self._look()
        if self._writing is None and not self._dropped:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                piece = self._waiting[0]
                await self.body.write(piece, self._stored)
                self._stored += len(piece)
                if self._waiting:
                    self._waiting.pop(0)
                self._look()
        except OSError as error:
            self.drop()
            self.body.end(error)
            self._failed()
        else:
            if self._stored == len(self.body):
                self.body.end()
        finally:
            self._writing = None

    def _look(self) -> None:
        full = len(self._waiting) >= MOST_WAITING
        if full != self._held:
            self._held = full
            self._hold(full)


def _not_taken(size: int, error: OSError) -> FoothillError:
    return FoothillError(
        "unavailable",
        f"This server cannot keep a body of {size} bytes on its disk ({error.strerror or error}). Retry elsewhere; its "
        f"operator frees {tempfile.gettempdir()}, or sets TMPDIR.",
    )
