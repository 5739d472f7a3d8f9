"""An operator's hand on a node's models: what the fleet assigned is taken off, loaded again, and handed out by file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from contracts.errors import FoothillError
from edge_node.loader import Loader, watched
from edge_node.records import disk_fails, note
from edge_node.reports import Reports
from edge_node.room import WhenShort
from edge_node.service import Service
from edge_node.slots import Slot, SlotFile, put_back, taken_off
from runtime.links.bundles.store import BundleStore
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.repository import stored_file

log = logging.getLogger(__name__)

Alone = Callable[[str], AbstractAsyncContextManager[None]]
"""With nobody else at a model."""


class NodeRepository:
    """Nothing that the updater does to a model goes on between its steps: `loading` is for steps that load it, `alone`
    for others. `prove` begins the probation of a model."""

    def __init__(
        self,
        store: BundleStore,
        slots: SlotFile,
        host: ModelHost,
        service: Service,
        reports: Reports,
        loader: Loader,
        *,
        loading: Alone,
        alone: Alone,
        prove: Callable[[str], None],
    ) -> None:
        self._store = store
        self._slots = slots
        self._host = host
        self._service = service
        self._reports = reports
        self._loader = loader
        self._loading = loading
        self._alone = alone
        self._prove = prove

    async def load(self, model: str) -> None:
        """Serves the current bundle of a model from a new copy. Raises FoothillError `model_not_found`, `unavailable`
        where memory is short, `bad_bundle`; what served before then goes on."""
        self._known(model)
        async with self._loading(model):
            slot = self._known(model)
            self._reports.tell(model, slot.current, "testing")
            async with self._told(model):
                await self._load(model, slot.current)
            if not slot.proven:
                self._prove(model)

    async def unload(self, model: str) -> None:
        """Nothing answers for a model until it is loaded, or the fleet wants another bundle of it; on a disk that takes
        nothing, until the node starts again. Raises FoothillError `model_not_found`, `unavailable`."""
        self._known(model)
        async with self._alone(model):
            slot = self._known(model)
            if slot.off:
                return
            self._host.get(model)
            log.info("%s: %s is unloaded by an operator", model, slot.current)
            slot = await note(self._slots, model, taken_off(slot))
            await self._service.unload(model)
            self._reports.tell_slot(model, slot)

    async def replace(self, model: str, digest: str) -> None:
        """Serves `digest` from a new copy, since what runs the one there is fails: where memory is short, that goes
        first. Nothing happens where the bundle is not served any more. Raises as `load` does."""
        async with self._loading(model):
            slot = self._slots.get(model)
            if slot.proven and slot.current == digest and self._service.answers_with(model, digest):
                async with self._told(model):
                    await self._load(model, digest, when_short="unload")

    def file(self, digest: str, name: str) -> Path:
        return stored_file(self._store, digest, name)

    def _known(self, model: str) -> Slot:
        slot = self._slots.get(model)
        if not slot.current:
            self._host.get(model)
        return slot

    @asynccontextmanager
    async def _told(self, model: str) -> AsyncIterator[None]:
        """Reports how the model stands after a load. After one that failed, what had to make way for it is back."""
        try:
            yield
        except OSError as error:
            raise disk_fails(error) from error
        finally:
            slot = self._slots.get(model)
            self._reports.tell_slot(model, slot, "" if slot.off else await self._stands(model, slot))

    async def _stands(self, model: str, slot: Slot) -> str:
        """Whatever of a slot's bundles is sound answers; what is wrong with the current one, "" for nothing."""
        if not self._service.answers(model):
            return await self._service.serve_first_of(model, slot.current, slot.previous)
        return "" if self._service.answers_with(model, slot.current) else "It could not be loaded again."

    async def _load(self, model: str, digest: str, when_short: WhenShort | None = None) -> None:
        await asyncio.to_thread(self._store.verify, digest)
        health = self._service.health(model)
        if await self._loader.way_in(model, digest, when_short=when_short) == "instead":
            log.warning("%s: memory is short, so what serves is unloaded before %s is loaded again", model, digest)
            await self._service.make_way(model)
        loaded = await self._loader.load(digest)
        if self._service.answers_with(model, digest):
            health = self._service.health(model)
        await self._switch(model, watched(loaded, health))

    async def _switch(self, model: str, loaded: LoadedModel) -> None:
        slot = self._slots.get(model)
        if slot.off:
            slot = await note(self._slots, model, put_back(slot, self._slots.begun))
        if not await self._service.serve_if(lambda: self._slots.get(model) == slot, model, loaded):
            raise FoothillError(
                "conflict", f"Model {model} was given another bundle while it was loaded. Load it again where you must."
            )
