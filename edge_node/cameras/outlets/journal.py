"""What waits to be told, on the disk beside the memory: it outlives the process.

The disk follows a moment later, so that what is taken at once never touches it; a disk that is full costs no message
while the process lives.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from edge_node.cameras.outlets.journal_file import JournalFile, is_no_database, set_aside

log = logging.getLogger(__name__)

GATHER_S = 0.1
"""What is said waits so long for the disk. A process that is killed then loses it."""
_AGAIN_S = 1.0


class Waiting(NamedTuple):
    """`number` rises, also from one life of the node to the next."""

    number: int
    body: bytes


class Journal:
    """Whoever keeps a message forgets it when it was taken, or has given way: how many there are is its own affair.

    All methods but `open` and `close` return at once. All of SQLite runs on one thread of its own.
    """

    def __init__(self, path: Path, *, gather_s: float = GATHER_S) -> None:
        self._path = path
        self._gather_s = gather_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._file: JournalFile | None = None
        self._offset = 0
        """Rows in the file are numbered so much higher than messages are in this life."""
        self._number = self._held = 0
        self._fresh: dict[int, bytes] = {}
        self._over: set[int] = set()
        self._is_wanted = False
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._fails = False

    @property
    def unkept(self) -> int:
        """How many messages are in memory alone."""
        return len(self._fresh)

    @property
    def kept(self) -> int:
        """How many are on the disk."""
        return self._held - len(self._fresh)

    async def open(self) -> list[Waiting] | None:
        """What an earlier life has left, the oldest first; None where there was no file, or none that can be read."""
        loop = asyncio.get_running_loop()
        left = await loop.run_in_executor(self._thread, self._read)
        self._held += len(left or ())
        self._task = asyncio.create_task(self._keep_writing())
        return left

    def make(self) -> None:
        """Has the file made, soon, though there may be nothing to keep yet."""
        if not self._is_wanted:
            self._is_wanted = True
            self._news.set()

    def keep(self, body: bytes) -> Waiting:
        self._number += 1
        self._held += 1
        self._fresh[self._number] = body
        self._news.set()
        return Waiting(self._number, body)

    def forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._held -= 1
            if self._fresh.pop(number, None) is None:
                self._over.add(number)
                self._news.set()

    async def close(self) -> None:
        """After what waits for the disk is there, if it can be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._write()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown()

    async def _keep_writing(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(_AGAIN_S if self._fails else self._gather_s)
            self._news.clear()
            await asyncio.shield(self._write())

    async def _write(self) -> None:
        async with self._writing:
            await self._write_once()

    async def _write_once(self) -> None:
        """What comes, or is over, meanwhile is for the next time."""
        fresh, self._fresh = self._fresh, {}
        over, self._over = self._over, set()
        if not (fresh or over or self._is_wanted):
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._on_thread, fresh, over)
        except (sqlite3.Error, OSError) as error:
            self._fresh = {number: body for number, body in fresh.items() if number not in self._over} | self._fresh
            self._over = (self._over - fresh.keys()) | over
            self._tell(str(error))
            self._news.set()
        else:
            self._tell("")

    def _on_thread(self, fresh: dict[int, bytes], over: set[int]) -> None:
        try:
            self._write_now(fresh, over)
        except sqlite3.DatabaseError as error:
            if not is_no_database(error):
                raise
            self._let_go()
            set_aside(self._path, error)
            self._write_now(fresh, set())

    def _write_now(self, fresh: dict[int, bytes], over: set[int]) -> None:
        if self._file is None:
            self._open_now()
        assert self._file is not None
        if fresh or over:
            offset = self._offset
            rows = ((offset + number, body) for number, body in fresh.items())
            self._file.write(rows, (offset + number for number in over))

    def _read(self) -> list[Waiting] | None:
        if not self._path.exists():
            return None
        try:
            return self._open_now()
        except (sqlite3.Error, OSError) as error:
            log.warning("%s cannot be read (%s): what waits there waits for the next start", self._path, error)
            return None

    def _open_now(self) -> list[Waiting]:
        """Of what is there the newest gets the number 0: it comes before all that this life says."""
        file = JournalFile(self._path)
        try:
            rows = file.read()
        except BaseException:
            file.close()
            raise
        self._file, self._offset = file, max((number for number, _ in rows), default=0)
        return [Waiting(number - self._offset, body) for number, body in rows]

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _tell(self, problem: str) -> None:
        """One line when it begins, one when it is over."""
        if bool(problem) != self._fails:
            if problem:
                log.warning("%s cannot be written (%s): what waits is in memory alone", self._path, problem)
            else:
                log.info("%s is written again: what waits is on the disk", self._path)
        self._fails = bool(problem)
