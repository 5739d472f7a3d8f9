"""A bundle's way from the fleet to a model that has passed its tests here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from contracts.errors import FoothillError
from edge_node.leftovers import Leftovers
from edge_node.loader import Loader, watched
from edge_node.records import save
from edge_node.reports import Reports
from edge_node.service import Service
from edge_node.slots import SlotFile, crashes_of, tried
from edge_node.whole import whole
from runtime.links.bundles.store import BundleStore, NoSpace
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)

Fetch = Callable[[str, str, bytes | None], Awaitable[Path]]
"""(model, digest, manifest if at hand) to the verified bundle directory in the store."""

MOST_CRASHES = 1


class Intake:
    """Each step says in the reports that it begins. All raise FoothillError, and OSError where the disk fails."""

    def __init__(
        self,
        store: BundleStore,
        slots: SlotFile,
        service: Service,
        reports: Reports,
        leftovers: Leftovers,
        *,
        fetch: Fetch,
        loader: Loader,
    ) -> None:
        self._store = store
        self._slots = slots
        self._service = service
        self._reports = reports
        self._leftovers = leftovers
        self._fetch_bundle = fetch
        self._loader = loader

    async def fetch(self, model: str, digest: str, manifest: bytes | None) -> None:
        """On a full disk what nobody needs makes room, and then what can be made again; each once."""
        self._reports.tell(model, digest, "fetching")
        for give_way in (self._leftovers.drop, self._leftovers.make_room):
            if await self._fetched(model, digest, manifest):
                return
            await give_way()
        await self._fetch_bundle(model, digest, manifest)

    async def _fetched(self, model: str, digest: str, manifest: bytes | None) -> bool:
        """False where the disk has no room."""
        try:
            await self._fetch_bundle(model, digest, manifest)
        except NoSpace as error:
            log.warning("%s: %s Dropping what is not needed.", model, error.message)
            return False
        return True

    async def verify(self, model: str, digest: str, manifest: bytes | None) -> None:
        """Reads the stored bundle again; a copy that went bad on this disk is fetched once more."""
        self._reports.tell(model, digest, "verifying")
        try:
            await asyncio.to_thread(self._store.verify, digest)
        except FoothillError as error:
            log.warning("%s Fetching it again.", error.message)
            await whole(asyncio.to_thread(self._store.remove, digest))
            await self.fetch(model, digest, manifest)
            await asyncio.to_thread(self._store.verify, digest)

    async def load_and_test(self, model: str, digest: str, sequence: int) -> LoadedModel:
        """Opens the bundle and holds it to its tests, with a trial open: a crash here is counted.

        Where memory is short, what serves may have to go first; whoever called brings it back on failure.
        """
        self._reports.tell(model, digest, "testing")
        slot = self._slots.get(model)
        if crashes_of(slot, digest) > MOST_CRASHES:
            raise FoothillError("bad_bundle", f"The node died {crashes_of(slot, digest)} times while it loaded this.")
        instead = await self._loader.way_in(model, digest) == "instead"
        await save(self._slots, model, tried(slot, digest, sequence))
        if instead:
            await self._make_way(model, digest)
        return await self._tested(model, digest)

    async def _make_way(self, model: str, digest: str) -> None:
        log.warning("%s: memory is short, so what serves is unloaded before %s is loaded", model, digest)
        await self._service.make_way(model)
        self._reports.tell(model, digest, "testing", "Memory is short: nothing answers while this is loaded.")

    async def _tested(self, model: str, digest: str) -> LoadedModel:
        loaded = await self._loader.load(digest)
        try:
            await self._loader.check_latency(model, loaded)
        except BaseException:
            await whole(asyncio.to_thread(loaded.close))
            raise
        return watched(loaded)
