"""The update of a node: from a desired document to models that answer, step by step, each undone on failure."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from contracts.errors import FoothillError
from contracts.messages import Desired, ModelReport
from edge_node.desired import order_of, refusal
from edge_node.intake import MOST_CRASHES, Fetch, Intake
from edge_node.leftovers import Leftovers
from edge_node.loader import Loader, watched
from edge_node.probation import Health, Rule, watch
from edge_node.records import attempt, disk_fails, note, save
from edge_node.reports import Reports
from edge_node.repository import NodeRepository
from edge_node.service import Service
from edge_node.slots import (
    Slot,
    SlotFile,
    confirmed,
    crashed,
    crashes_of,
    promoted,
    refused,
    reverted,
    stopped,
    waiting,
)
from edge_node.whole import whole
from runtime.links.bundles.store import BundleStore
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)


class Updater:
    """Brings the models of one node to what is desired. `reports` says of each how far it is; `repository` is for
    operators.

    One `apply` at a time; cancelling it is safe at any point. `serving` is called with each model just before it
    answers its first request, `changed` after every change of `reports`.
    """

    def __init__(
        self,
        *,
        node: str,
        store: BundleStore,
        slots: SlotFile,
        host: ModelHost,
        fetch: Fetch,
        loader: Loader,
        rule: Rule,
        serving: Callable[[LoadedModel], None],
        made: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._slots = slots
        self._rule = rule
        self._clock = clock
        self._wall = wall
        self._reports = Reports(host, slots)
        self._leftovers = Leftovers(store, slots, made)
        self._service = Service(store, host, loader, serving)
        self._intake = Intake(store, slots, self._service, self._reports, self._leftovers, fetch=fetch, loader=loader)
        self._sequence = slots.sequence
        self._document = slots.document
        self._refused: Desired | None = None
        self._one_load = asyncio.Lock()
        self._hands: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._probations: set[asyncio.Task[None]] = set()
        self.repository = NodeRepository(
            store,
            slots,
            host,
            self._service,
            self._reports,
            loader,
            loading=self._loading,
            alone=self._alone,
            prove=self._begin_probation,
        )

    @property
    def reports(self) -> Mapping[str, ModelReport]:
        return self._reports.models

    @property
    def changed(self) -> list[Callable[[], None]]:
        return self._reports.changed

    @property
    def sequence(self) -> int:
        """Of the desired document that the reports speak of."""
        return self._sequence

    def refusal(self, desired: Desired) -> str:
        taken = max(self._sequence, self._slots.begun)
        return refusal(desired, node=self._node, taken=taken, document=self._document, now_s=self._wall())

    async def restore(self) -> None:
        """Serves what the slots say, without the fleet, and on a disk that takes nothing more. Call it once, before
        the first `apply`."""
        await self._leftovers.sweep()
        for model, slot in self._slots.models.items():
            await note(self._slots, model, crashed(slot))
            await self._restore_model(model)

    async def apply(self, desired: Desired, manifests: Mapping[str, bytes]) -> bool:
        """Follows one desired document; `manifests` by digest spare downloads. False: call again later."""
        reason = self.refusal(desired)
        if reason:
            if desired != self._refused:
                log.warning("desired document %d is refused: %s", desired.sequence, reason)
            self._refused = desired
            return self._wall() <= desired.expires_at_s  # a clock that was wrong is put right some time
        self._sequence, self._document = desired.sequence, order_of(desired)
        self._reports.announce()
        begun = await attempt(lambda: self._slots.begin(desired.sequence, self._document))
        await self.end_probations()
        retired = [await self._retire(model) for model in set(self._slots.models) - set(desired.models)]
        ends = await asyncio.gather(
            *(self._update(model, digest, manifests.get(digest)) for model, digest in desired.models.items())
        )
        self._leftovers.waiting = {digest for digest, end in zip(desired.models.values(), ends, strict=True) if not end}
        await self._leftovers.drop()
        return begun and all(retired) and all(ends) and await attempt(lambda: self._slots.take(desired.sequence))

    async def promote(self, model: str, loaded: LoadedModel) -> bool:
        """Serves another artifact of the bundle that is served and has passed probation.

        Takes `loaded` over. False, and it is closed, when that bundle is not served any more.
        """
        async with self._loading(model):
            if not self._is_current(model, loaded.digest) or not self._slots.get(model).proven:
                await asyncio.to_thread(loaded.close)
                return False
            await self._service.serve(model, watched(loaded))
            self._reports.tell(model, loaded.digest, "active")
        return True

    async def stop(self) -> None:
        """Before a clean end of the process."""
        await self.end_probations()
        for model, slot in self._slots.models.items():
            await note(self._slots, model, stopped(slot))

    async def end_probations(self) -> None:
        """Ends the watch over bundles that were on probation at the start; the slots go on saying that they are.

        An apply watches for itself, and what it does not speak of is retired.
        """
        probations, self._probations = self._probations, set()
        for task in probations:
            task.cancel()
        await asyncio.gather(*probations, return_exceptions=True)

    async def _update(self, model: str, digest: str, manifest: bytes | None) -> bool:
        """One model's story. False when a step failed that may succeed later."""
        self._leftovers.working.add(digest)
        try:
            async with self._alone(model):
                if await self._is_settled(model, digest):
                    return True
            if not self._is_current(model, digest):
                await self._intake.fetch(model, digest, manifest)
                await self._intake.verify(model, digest, manifest)
                async with self._loading(model):
                    loaded = await self._intake.load_and_test(model, digest, self._sequence)
                    await self._activate(model, loaded)
            await self._pass_probation(model)
        except FoothillError as error:
            return await self._fail(model, digest, error)
        except OSError as error:
            return await self._fail(model, digest, disk_fails(error))
        except Exception as error:
            log.exception("updating %s to %s failed", model, digest)
            return await self._fail(model, digest, FoothillError("internal", f"{type(error).__name__}: {error}"))
        finally:
            self._leftovers.working.discard(digest)
        return True

    async def _activate(self, model: str, loaded: LoadedModel) -> None:
        """The slot first: should the new bundle kill the node, its next start knows which one it was."""
        try:
            await save(self._slots, model, promoted(self._slots.get(model), loaded.digest, self._sequence))
        except OSError:
            await whole(asyncio.to_thread(loaded.close))
            raise
        await self._service.serve(model, loaded)

    async def _pass_probation(self, model: str) -> None:
        """Watches the current bundle; one that an operator loads again meanwhile is watched from the beginning."""
        while not await self._watch(model):
            pass

    async def _watch(self, model: str) -> bool:
        """False when what was watched made way for another copy of the bundle."""
        slot, copy = self._slots.get(model), self._service.copy(model)
        if not self._is_current(model, slot.current):
            return True
        health = Health()
        if not slot.proven:
            self._reports.tell(model, slot.current, "probation")
            health = await watch(lambda: self._service.health(model), self._rule, self._clock)
        async with self._alone(model):
            if not self._is_current(model, slot.current):
                return True
            if health.errors:
                await self._revert(model, health.error)
                return True
            if self._service.copy(model) is not copy:
                return False
            if not slot.proven:
                await note(self._slots, model, confirmed(self._slots.get(model)))
                log.info("%s: %s has passed probation after %d runs", model, slot.current, health.runs)
            self._reports.tell(model, slot.current, "active")
        return True

    def _begin_probation(self, model: str) -> None:
        self._probations.add(asyncio.create_task(self._pass_probation(model)))

    async def _revert(self, model: str, why: str) -> None:
        """Back to the previous bundle, which is in the store: this needs no network, and no room on the disk."""
        slot = self._slots.get(model)
        bad, error = slot.current, f"It failed on probation: {why}"
        log.error("%s: %s goes back to %s. %s", model, bad, slot.previous or "nothing", error)
        await note(self._slots, model, reverted(slot, self._sequence, error))
        await self._serve(model, self._slots.get(model))
        self._reports.tell(model, bad, "reverted", error)

    async def _fail(self, model: str, digest: str, error: FoothillError) -> bool:
        """The old bundle goes on. What may succeed later is left to the next call."""
        async with self._alone(model):
            return await self._go_on(model, digest, error)

    async def _go_on(self, model: str, digest: str, error: FoothillError) -> bool:
        slot = self._slots.get(model)
        if error.retryable:
            log.warning("%s: %s waits: %s", model, digest, error.message)
            slot = await note(self._slots, model, waiting(slot, digest))
            await self._bring_back(model, slot)
            self._reports.tell(model, digest, "fetching", error.message)
            return False
        log.error("%s: %s is refused: %s", model, digest, error.message)
        if slot.current == digest:
            slot = await note(self._slots, model, reverted(slot, self._sequence, error.message))
            if not self._service.answers_with(model, slot.current):
                await self._serve(model, slot)
        else:
            slot = await note(self._slots, model, refused(slot, digest, self._sequence, error.message))
            await self._bring_back(model, slot)
        self._reports.tell(model, digest, "failed", error.message)
        return True

    async def _bring_back(self, model: str, slot: Slot) -> None:
        """What had to make way for a bundle that failed."""
        if not self._service.answers(model):
            await self._serve(model, slot)

    async def _serve(self, model: str, slot: Slot) -> str:
        """Serves what a slot says; what was wrong with its bundle, "" for nothing."""
        if slot.off:
            await self._service.unload(model)
            return ""
        return await self._service.serve_first_of(model, slot.current, slot.previous)

    async def _retire(self, model: str) -> bool:
        """False when the disk did not take it."""
        log.info("%s is no longer desired here", model)
        async with self._alone(model):
            await self._service.end(model)
            gone = await attempt(lambda: self._slots.remove(model))
            self._reports.forget(model)
        return gone

    async def _restore_model(self, model: str) -> None:
        slot = self._slots.get(model)
        if slot.trial is not None and crashes_of(slot, slot.current) > MOST_CRASHES:
            error = f"The node died {slot.trial.crashes} times while it was on probation."
            log.error("%s: %s goes back to %s. %s", model, slot.current, slot.previous or "nothing", error)
            slot = await note(self._slots, model, reverted(slot, slot.trial.sequence, error))
        error = await self._serve(model, slot)
        self._reports.tell_slot(model, slot, error)
        if not slot.proven and self._is_current(model, slot.current):
            self._begin_probation(model)

    @asynccontextmanager
    async def _alone(self, model: str) -> AsyncIterator[None]:
        """Between reading a slot and doing what it says nobody else changes what is there of that model."""
        async with self._hands[model]:
            yield

    @asynccontextmanager
    async def _loading(self, model: str) -> AsyncIterator[None]:
        """As `_alone`; one model at a time, since memory is asked for first and taken later."""
        async with self._one_load, self._alone(model):
            yield

    def _is_current(self, model: str, digest: str) -> bool:
        return self._service.answers_with(model, digest) and self._slots.get(model).current == digest

    async def _is_settled(self, model: str, digest: str) -> bool:
        """Whether nothing is left to do; a document that comes again does not try again what failed under it."""
        slot = self._slots.get(model)
        if slot.rejected is not None and slot.rejected.digest == digest:
            return slot.rejected.sequence == self._sequence
        if slot.off and slot.current == digest:
            self._reports.tell_slot(model, await save(self._slots, model, msgspec.structs.replace(slot, rejected=None)))
            return True
        if not self._is_current(model, digest) or not slot.proven:
            return False
        await save(self._slots, model, confirmed(slot))
        self._reports.tell(model, digest, "active")
        return True
