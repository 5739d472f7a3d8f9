"""The audit log as operators are shown it: read beside the one who writes, and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from fleet.auditing.chain import Entry, Mark
from fleet.auditing.replay import Holding, digest_of, digest_of_assignments
from fleet.state import State

R = TypeVar("R")

_PAGE_BYTES = 1 << 20


class AuditHead(msgspec.Struct, frozen=True):
    """The end of the log, and what the fleet holds there."""

    mark: Mark
    holding: Holding


class AuditReader:
    """`path` of the database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def head(self) -> AuditHead:
        return await asyncio.to_thread(self._reading, _head)

    async def pages(self, after: int) -> AsyncIterator[list[Entry]]:
        """All entries above the number `after`, a megabyte or one entry at a time."""
        while page := await asyncio.to_thread(self._reading, lambda state, after=after: _page(state, after)):
            after = page[-1].seq
            yield page

    def _reading(self, work: Callable[[State], R]) -> R:
        state = State(self._path, reading=True)
        try:
            return work(state)
        finally:
            state.close()


def holding_of(state: State) -> Holding:
    digests = {course.id: digest_of(course) for course in state.courses()}
    return Holding(digests, digest_of_assignments(state.assignments()))


def _head(state: State) -> AuditHead:
    return AuditHead(state.audit.mark(), holding_of(state))


def _page(state: State, after: int) -> list[Entry]:
    page, size = [], 0
    for entry in state.audit.entries(after):
        page.append(entry)
        size += len(bytes(entry.body))
        if size >= _PAGE_BYTES:
            break
    return page
