"""Contents in chunks over MQTT, for nodes that reach the broker and not the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from contracts.manifest import File
from runtime.links.bundles.fetch import Way, Ways
from runtime.links.bundles.store import BundleStore
from runtime.links.chunks.file import ChunkFile
from runtime.links.chunks.line import ChunkLine


def chunk_ways(line: ChunkLine) -> Ways:
    """The line stays open for the time of a bundle."""

    @asynccontextmanager
    async def ways() -> AsyncIterator[Way]:
        async with line.opened():
            yield _ChunkWay(line)

    return ways


class _ChunkWay:
    def __init__(self, line: ChunkLine) -> None:
        self._line = line

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        chunks = await asyncio.to_thread(ChunkFile, store, file)
        try:
            await self._pull(chunks, file, told)
            await asyncio.to_thread(chunks.finish)
        finally:
            await asyncio.to_thread(chunks.close)

    async def _pull(self, chunks: ChunkFile, file: File, told: Callable[[int], None]) -> None:
        pull = self._line.pull(file.sha256, chunks.bits.missing(), file.bytes)
        try:
            while not chunks.bits.complete:
                await asyncio.to_thread(chunks.put, await pull.next())
                told(chunks.bits.held_bytes)
        finally:
            pull.close()
