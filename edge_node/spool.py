"""The spool: what the cloud should have answered waits here until it can, on a disk of bounded patience.

All of SQLite runs on one thread of its own. Whatever the disk does, serving goes on: an input that cannot be kept is
counted and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge_node.spool_file import Doubtful, Kept, LateAnswer, SpoolConfig, SpoolFile
from edge_node.spool_metrics import SpoolMetrics
from runtime.links.process.disk import REAL_DISK, Disk

log = logging.getLogger(__name__)

FILE = "spool.db"
MOST_UNWRITTEN_BYTES = 64 << 20
MOST_UNWRITTEN = 256
"""What waits in memory for the disk; one more is not kept."""
_SUFFIXES = ("", "-wal", "-shm")

R = TypeVar("R")


class SpoolAway(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """The disk does not take or give the spool's rows now. Logged once, when it begins."""


class Spool:
    """Keeps inputs and late answers in `directory`. `wall` gives unix time.

    `reserve_bytes` of the disk are never taken. Several inputs that come at once share one write to the disk.
    """

    def __init__(
        self,
        directory: Path,
        config: SpoolConfig,
        metrics: SpoolMetrics,
        wall: Callable[[], float],
        *,
        reserve_bytes: int = 0,
        disk: Disk = REAL_DISK,
    ) -> None:
        self._directory = directory
        self._config = config
        self._metrics = metrics
        self._wall = wall
        self._reserve_bytes = reserve_bytes
        self._disk = disk
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._file: SpoolFile | None = None
        self._counted: Counter[str] = Counter()
        self._unwritten: list[tuple[Doubtful, asyncio.Future[Kept | None]]] = []
        self._unwritten_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._said = ""
        self._closing = False
        self.news = asyncio.Event()
        """Set when something was kept; whoever waits for it clears it."""

    async def put(self, doubtful: Doubtful) -> bool:
        """True once the input is on the disk, or was already. Raises nothing."""
        size = len(doubtful.request.body)
        if self._closing:
            return False
        if len(self._unwritten) >= MOST_UNWRITTEN or self._unwritten_bytes + size > MOST_UNWRITTEN_BYTES:
            self._metrics.dropped({"busy": 1})
            return False
        done: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        self._unwritten.append((doubtful, done))
        self._unwritten_bytes += size
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await done in ("kept", "known")

    async def next(self) -> Doubtful | None:
        """The input whose turn it is: the oldest, those tried in vain last. Raises SpoolAway, as all that follow."""
        return await self._run(SpoolFile.next)

    async def failed(self, tried: Doubtful) -> int:
        return await self._run(lambda file: file.failed(tried))

    async def drop(self, refused: Doubtful, reason: str) -> None:
        await self._run(lambda file: file.drop(refused, reason))

    async def answer(self, asked: Doubtful, late: LateAnswer) -> None:
        """Replaces an input by its answer."""
        await self._run(lambda file: file.answer(asked, late))
        self._metrics.delivered()

    async def find(self, tenant: str, request_id: str) -> LateAnswer | Doubtful | None:
        return await self._run(lambda file: file.find(tenant, request_id))

    async def unpublished(self) -> LateAnswer | None:
        return await self._run(SpoolFile.unpublished)

    async def untold(self) -> list[tuple[str, str]]:
        """Tenant and request id of every answer that is not published."""
        return await self._run(SpoolFile.untold)

    async def published(self, late: LateAnswer) -> None:
        await self._run(lambda file: file.published(late))

    async def expire(self) -> None:
        await self._run(SpoolFile.expire)

    async def close(self) -> None:
        """After what was begun is on the disk."""
        self._closing = True
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown()

    async def _write(self) -> None:
        while self._unwritten:
            batch, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
            inputs = [doubtful for doubtful, _ in batch]
            try:
                kept: list[Kept] | None = await self._run(partial(self._put, inputs=inputs))
            except SpoolAway:
                kept = None
                self._metrics.dropped({"disk": len(inputs)})
            else:
                self._tell("")
            for at, (_, done) in enumerate(batch):
                if not done.done():
                    done.set_result(kept[at] if kept is not None else None)
            self._count(kept or [])

    def _count(self, kept: list[Kept]) -> None:
        told = Counter(kept)
        self._metrics.spooled(told["kept"])
        self._metrics.dropped({reason: told[reason] for reason in ("too-large", "full", "conflict") if told[reason]})
        if told["kept"]:
            self.news.set()

    def _put(self, file: SpoolFile, *, inputs: list[Doubtful]) -> list[Kept]:
        wanted = sum(len(each.request.body) for each in inputs)
        free = self._disk.free_bytes(self._directory)
        if free < wanted + self._reserve_bytes:
            raise sqlite3.OperationalError(f"the disk has {free} bytes left, and {self._reserve_bytes} must stay free")
        return file.put(inputs)

    async def _run(self, job: Callable[[SpoolFile], R]) -> R:
        """Does a job on the spool's thread. Raises SpoolAway."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._on_thread, job)
        except (sqlite3.Error, OSError) as error:
            self._tell(str(error))
            raise SpoolAway(str(error)) from error

    def _on_thread(self, job: Callable[[SpoolFile], R]) -> R:
        try:
            return self._do(job)
        except sqlite3.DatabaseError as error:
            # What SQLite cannot read has this very class; a full disk or a wrong query has one of its own.
            if type(error) is not sqlite3.DatabaseError:
                raise
            self._set_aside(error)
            return self._do(job)

    def _do(self, job: Callable[[SpoolFile], R]) -> R:
        file = self._opened()
        result = job(file)
        self._show(file)
        return result

    def _opened(self) -> SpoolFile:
        if self._file is None:
            self._file = SpoolFile(self._directory / FILE, self._config, self._wall)
            self._counted = Counter()
        return self._file

    def _show(self, file: SpoolFile) -> None:
        self._metrics.dropped(file.dropped - self._counted)
        self._counted = file.dropped.copy()
        self._metrics.show(file.figures(), self._wall())

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """What cannot be read is kept for whoever wants to look, once; the spool begins anew."""
        self._let_go()
        database = self._directory / FILE
        for suffix in _SUFFIXES:
            old = database.with_name(FILE + suffix)
            if old.exists():
                os.replace(old, old.with_name(f"{FILE}.bad{suffix}"))
        self._metrics.dropped({"corrupt": 1})
        log.error("spool: %s is no spool (%s): moved to %s.bad, begun anew", database, error, FILE)

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _tell(self, problem: str) -> None:
        """One line when it begins, one when inputs are kept again: reading may well go on meanwhile."""
        if bool(problem) != bool(self._said):
            if problem:
                log.error("spool: nothing can be kept for the cloud now: %s. Serving goes on without.", problem)
            else:
                log.info("spool: inputs are kept for the cloud again")
        self._said = problem
