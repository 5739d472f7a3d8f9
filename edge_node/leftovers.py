"""What lies in a node's store and nobody needs any more."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from edge_node.records import attempt
from edge_node.slots import SlotFile
from runtime.links.bundles.store import BundleStore
from runtime.serving.engines.provider_cache import drop_graphs, keep_only


class Leftovers:
    """`working` are the digests that updates are at, `waiting` those that will be tried again. That a disk does not let
    go of something fails no update. `made` is where engines keep what they make of artifacts."""

    def __init__(self, store: BundleStore, slots: SlotFile, made: Path | None = None) -> None:
        self.working: set[str] = set()
        self.waiting: set[str] = set()
        self._store = store
        self._slots = slots
        self._made = made
        self._dropping = asyncio.Lock()

    async def drop(self) -> None:
        """Whatever no slot names and no update works on.

        Not while the disk names other slots: the next life would miss what they name.
        """
        if not self._slots.written:
            return
        async with self._dropping:
            used = self.working.union(*(slot.digests() for slot in self._slots.models.values()))
            coming = self.working | self.waiting
            await attempt(lambda: self._store.collect(used, coming))
            await attempt(self._drop_made)

    async def make_room(self) -> None:
        """By what can be made again in a moment."""
        if self._made is not None:
            await attempt(partial(drop_graphs, self._made))

    def _drop_made(self) -> None:
        if self._made is not None:
            keep_only(self._made, self._store.contents())

    async def sweep(self) -> None:
        """What writes of an earlier life have left half-way. Before anything else is written."""
        await attempt(self._store.sweep)
