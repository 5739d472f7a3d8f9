"""The file of what tenants have spent today: a restart refills nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from router.budgets import Book, Budgets
from runtime.links.process.durable import make_directories, write_file
from runtime.links.process.within import within

log = logging.getLogger(__name__)

SAVE_S = 1.0
FILE = "budgets.json"


def read_book(path: Path) -> Book:
    """An empty one where there is no file yet. One that is none is set aside, and told in the log."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Book)
    except FileNotFoundError:
        return Book()
    except (OSError, *UNREADABLE) as error:
        aside = path.with_suffix(".corrupt")
        log.error("%s cannot be read (%s): budgets begin anew. What it was is kept as %s.", path, error, aside.name)
        with contextlib.suppress(OSError):
            path.replace(aside)
        return Book()


class Ledger:
    """Writes the book of `budgets` to `path`: once a second where it has changed, in a thread, and at the end.

    What a process that dies has spent in its last second is forgotten.
    """

    def __init__(self, path: Path, budgets: Budgets, *, save_s: float = SAVE_S) -> None:
        self._path = path
        self.budgets = budgets
        self._save_s = save_s
        self._saved = budgets.changes
        self._failed = False
        self._stopping = asyncio.Event()
        self._saving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._saving = asyncio.create_task(self._keep_saving())

    async def stop(self) -> None:
        """Not by cancelling: a thread that writes goes on, and two would write one file."""
        self._stopping.set()
        if self._saving is not None:
            await self._saving
        await self.save()

    async def save(self) -> None:
        """Nothing where nothing has changed; what cannot be written is tried again, and told once."""
        changes = self.budgets.changes
        if changes == self._saved:
            return
        data = msgspec.json.encode(self.budgets.book)
        try:
            await asyncio.to_thread(_write, self._path, data)
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written (%s): a restart would refill budgets.", self._path, error)
            self._failed = True
        else:
            self._saved, self._failed = changes, False

    async def _keep_saving(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._stopping.wait(), self._save_s)
            await self.save()


def _write(path: Path, data: bytes) -> None:
    make_directories(path.parent)
    write_file(path, data)
