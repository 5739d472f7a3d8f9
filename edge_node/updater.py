"""The update of a node: from a desired document to models that answer, step by step, each undone on failure."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import FoothillError
from contracts.messages import Desired, ModelPhase, ModelReport
from edge_node.probation import Health, Rule, WatchedEngine, judge
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
    tried,
)
from runtime.links.bundles import BundleStore
from runtime.serving.golden import open_tested
from runtime.serving.hosting import ModelHost
from runtime.serving.loaded import LoadedModel

log = logging.getLogger(__name__)

T = TypeVar("T")

Fetch = Callable[[str, str, bytes | None], Awaitable[Path]]
"""(model, digest, manifest if at hand) to the verified bundle directory in the store."""

MOST_CRASHES = 1
_WATCH_EVERY_S = 0.05


def refusal(desired: Desired, *, node: str, taken: int, now_s: float) -> str:
    """Why a desired document is not followed; "" when it is. The one taken last may come again."""
    if desired.node != node:
        return f"it is for node {desired.node[:80]!r}"
    if desired.sequence < taken:
        return f"its sequence {desired.sequence} is below {taken}, which was taken before"
    if now_s > desired.expires_at_s:
        return f"it expired {now_s - desired.expires_at_s:.0f} s ago; the fleet must issue it again"
    return ""


class Updater:
    """Brings the models of one node to what is desired. `reports` says of each how far it is.

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
        target: str,
        threads: int,
        rule: Rule,
        serving: Callable[[LoadedModel], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.reports: dict[str, ModelReport] = {}
        self.changed: list[Callable[[], None]] = []
        self._node = node
        self._store = store
        self._slots = slots
        self._host = host
        self._fetch_bundle = fetch
        self._target = target
        self._threads = threads
        self._rule = rule
        self._serving = serving
        self._clock = clock
        self._wall = wall
        self._sequence = slots.sequence
        self._working: set[str] = set()
        self._loading = asyncio.Lock()
        self._probations: set[asyncio.Task[None]] = set()

    @property
    def sequence(self) -> int:
        """Of the desired document that the reports speak of."""
        return self._sequence

    def refusal(self, desired: Desired) -> str:
        return refusal(desired, node=self._node, taken=self._sequence, now_s=self._wall())

    async def restore(self) -> None:
        """Serves what the slots say, without the fleet. Call it once, before the first `apply`."""
        self._store.sweep()
        for model, slot in self._slots.models.items():
            await self._save(model, crashed(slot))
            await self._restore_model(model)
        await self._drop_unused_bundles()

    async def apply(self, desired: Desired, manifests: Mapping[str, bytes]) -> bool:
        """Follows one desired document; `manifests` by digest spare downloads. False: call again later."""
        reason = self.refusal(desired)
        if reason:
            log.warning("desired document %d is refused: %s", desired.sequence, reason)
            return True
        self._sequence = desired.sequence
        self._announce()
        await self.end_probations()
        for model in set(self._slots.models) - set(desired.models):
            await self._retire(model)
        ends = await asyncio.gather(
            *(self._update(model, digest, manifests.get(digest)) for model, digest in desired.models.items())
        )
        if all(ends):
            await _whole(asyncio.to_thread(self._slots.take, desired.sequence))
        return all(ends)

    async def promote(self, model: str, loaded: LoadedModel) -> bool:
        """Serves another artifact of the bundle that is served and has passed probation.

        Takes `loaded` over. False, and it is closed, when that bundle is not served any more.
        """
        async with self._loading:
            if not self._is_current(model, loaded.digest) or not self._slots.get(model).proven:
                await asyncio.to_thread(loaded.close)
                return False
            loaded.engine = WatchedEngine(loaded.engine)
            await self._serve(model, loaded)
            self._tell(model, loaded.digest, "active")
        return True

    async def stop(self) -> None:
        """Before a clean end of the process."""
        await self.end_probations()
        for model, slot in self._slots.models.items():
            await self._save(model, stopped(slot))

    async def _update(self, model: str, digest: str, manifest: bytes | None) -> bool:
        """One model's story. False when a step failed that may succeed later."""
        if await self._is_settled(model, digest):
            return True
        self._working.add(digest)
        try:
            if not self._is_current(model, digest):
                await self._fetch(model, digest, manifest)
                await self._verify(model, digest, manifest)
                async with self._loading:
                    loaded = await self._load_and_test(model, digest)
                    await self._activate(model, loaded)
            await self._pass_probation(model)
        except FoothillError as error:
            return await self._fail(model, digest, error)
        except OSError as error:
            return await self._fail(model, digest, FoothillError("unavailable", f"This node's disk fails: {error}."))
        except Exception as error:
            log.exception("updating %s to %s failed", model, digest)
            return await self._fail(model, digest, FoothillError("internal", f"{type(error).__name__}: {error}"))
        finally:
            self._working.discard(digest)
        await self._drop_unused_bundles()
        return True

    async def _fetch(self, model: str, digest: str, manifest: bytes | None) -> None:
        self._tell(model, digest, "fetching")
        await self._fetch_bundle(model, digest, manifest)

    async def _verify(self, model: str, digest: str, manifest: bytes | None) -> None:
        """Reads the stored bundle again; a copy that went bad on this disk is fetched once more."""
        self._tell(model, digest, "verifying")
        try:
            await asyncio.to_thread(self._store.verify, digest)
        except FoothillError as error:
            log.warning("%s Fetching it again.", error.message)
            await asyncio.to_thread(self._store.remove, digest)
            await self._fetch(model, digest, manifest)
            await asyncio.to_thread(self._store.verify, digest)

    async def _load_and_test(self, model: str, digest: str) -> LoadedModel:
        """Opens the bundle and holds it to its golden test, with a trial open: a crash here is counted."""
        self._tell(model, digest, "testing")
        slot = self._slots.get(model)
        if crashes_of(slot, digest) > MOST_CRASHES:
            raise FoothillError("bad_bundle", f"The node died {crashes_of(slot, digest)} times while it loaded this.")
        await self._save(model, tried(slot, digest, self._sequence))
        return await _whole(asyncio.to_thread(self._open, digest))

    async def _activate(self, model: str, loaded: LoadedModel) -> None:
        """The slot first: should the new bundle kill the node, its next start knows which one it was."""
        await self._save(model, promoted(self._slots.get(model), loaded.digest, self._sequence))
        await self._serve(model, loaded)

    async def _pass_probation(self, model: str) -> None:
        slot = self._slots.get(model)
        if not slot.proven:
            self._tell(model, slot.current, "probation")
            health = await self._watch(model)
            if health.errors:
                await self._revert(model, health.error)
                return
            await self._save(model, confirmed(self._slots.get(model)))
            log.info("%s: %s has passed probation after %d runs", model, slot.current, health.runs)
        self._tell(model, slot.current, "active")

    async def _watch(self, model: str) -> Health:
        """Waits for the end of probation."""
        started_s = self._clock()
        health = self._health(model)
        while judge(self._clock() - started_s, health, self._rule) == "wait":
            await asyncio.sleep(_WATCH_EVERY_S)
            health = self._health(model)
        return health

    async def _revert(self, model: str, why: str) -> None:
        """Back to the previous bundle, which is in the store: this needs no network."""
        slot = self._slots.get(model)
        bad, error = slot.current, f"It failed on probation: {why}"
        log.error("%s: %s goes back to %s. %s", model, bad, slot.previous or "nothing", error)
        await self._save(model, reverted(slot, self._sequence, error))
        await self._serve_first_of(model, slot.previous)
        self._tell(model, bad, "reverted", error)

    async def _fail(self, model: str, digest: str, error: FoothillError) -> bool:
        """The old bundle goes on. What may succeed later is left to the next call."""
        if error.retryable:
            log.warning("%s: %s waits: %s", model, digest, error.message)
            self._tell(model, digest, "fetching", error.message)
            return False
        log.error("%s: %s is refused: %s", model, digest, error.message)
        slot = self._slots.get(model)
        if slot.current == digest:
            slot = await self._save(model, reverted(slot, self._sequence, error.message))
            if not self._is_served(model, slot.current):
                await self._serve_first_of(model, slot.current)
        else:
            await self._save(model, refused(slot, digest, self._sequence, error.message))
        self._tell(model, digest, "failed", error.message)
        self._working.discard(digest)
        await self._drop_unused_bundles()
        return True

    async def _retire(self, model: str) -> None:
        log.info("%s is no longer desired here", model)
        if model in self._host.models:
            await _whole(self._host.retire(model))
        await _whole(asyncio.to_thread(self._slots.remove, model))
        self.reports.pop(model, None)
        self._announce()
        await self._drop_unused_bundles()

    async def _restore_model(self, model: str) -> None:
        slot = self._slots.get(model)
        if slot.trial is not None and crashes_of(slot, slot.current) > MOST_CRASHES:
            error = f"The node died {slot.trial.crashes} times while it was on probation."
            log.error("%s: %s goes back to %s. %s", model, slot.current, slot.previous or "nothing", error)
            slot = await self._save(model, reverted(slot, slot.trial.sequence, error))
        error = await self._serve_first_of(model, slot.current, slot.previous)
        self._tell_restored(model, slot, error)
        if not slot.proven and self._is_current(model, slot.current):
            self._probations.add(asyncio.create_task(self._pass_probation(model)))

    async def _serve_first_of(self, model: str, *digests: str) -> str:
        """Serves the first bundle that is intact, loads and passes its golden test; else takes the model off.

        Returns what was wrong with those before it, "" when it was the very first.
        """
        errors: list[str] = []
        for digest in filter(None, digests):
            error = await self._serve_stored(model, digest)
            if not error:
                return " ".join(errors)
            log.error("%s: stored bundle %s is not served: %s", model, digest, error)
            errors.append(error)
        if model in self._host.models:
            await _whole(self._host.retire(model))
        return " ".join(errors)

    async def _serve_stored(self, model: str, digest: str) -> str:
        try:
            await asyncio.to_thread(self._store.verify, digest)
            loaded = await _whole(asyncio.to_thread(self._open, digest))
            await self._serve(model, loaded)
        except FoothillError as error:
            return error.message
        except OSError as error:
            return f"This node's disk fails: {error}."
        return ""

    def _open(self, digest: str) -> LoadedModel:
        """Blocks. The engine is watched only after its golden test, so that probation counts real requests."""
        loaded = open_tested(self._store.path(digest), digest, target=self._target, threads=self._threads)
        loaded.engine = WatchedEngine(loaded.engine)
        return loaded

    async def _serve(self, model: str, loaded: LoadedModel) -> None:
        self._serving(loaded)
        await _whole(self._host.activate(model, loaded))

    def _health(self, model: str) -> Health:
        served = self._host.models.get(model)
        engine = served.loaded.engine if served is not None else None
        return engine.health if isinstance(engine, WatchedEngine) else Health()

    def _is_served(self, model: str, digest: str) -> bool:
        served = self._host.models.get(model)
        return served is not None and served.loaded.digest == digest

    def _is_current(self, model: str, digest: str) -> bool:
        return self._is_served(model, digest) and self._slots.get(model).current == digest

    async def _is_settled(self, model: str, digest: str) -> bool:
        """Whether nothing is left to do; a document that comes again does not try again what failed under it."""
        slot = self._slots.get(model)
        if slot.rejected is not None and slot.rejected.digest == digest:
            return slot.rejected.sequence == self._sequence
        if not self._is_current(model, digest) or not slot.proven:
            return False
        await self._save(model, confirmed(slot))
        self._tell(model, digest, "active")
        return True

    async def _drop_unused_bundles(self) -> None:
        used = self._working.union(*(slot.digests() for slot in self._slots.models.values()))
        for digest in self._store.digests():
            if digest not in used:
                await _whole(asyncio.to_thread(self._store.remove, digest))

    async def end_probations(self) -> None:
        """Ends the watch over bundles that were on probation at the start; the slots go on saying that they are.

        An apply watches for itself, and what it does not speak of is retired.
        """
        probations, self._probations = self._probations, set()
        for task in probations:
            task.cancel()
        await asyncio.gather(*probations, return_exceptions=True)

    async def _save(self, model: str, slot: Slot) -> Slot:
        await _whole(asyncio.to_thread(self._slots.put, model, slot))
        return slot

    def _tell_restored(self, model: str, slot: Slot, error: str) -> None:
        if slot.rejected is not None:
            self._tell(model, slot.rejected.digest, slot.rejected.phase, slot.rejected.error)
        elif error or not slot.current:
            trial = slot.trial.digest if slot.trial is not None else ""
            self._tell(model, slot.current or trial, "failed", error or "It was not loaded before the node stopped.")
        else:
            self._tell(model, slot.current, "active" if slot.proven else "probation")

    def _tell(self, model: str, digest: str, phase: ModelPhase, error: str = "") -> None:
        served = self._host.reports().get(model)
        self.reports[model] = ModelReport(
            digest=digest,
            phase=phase,
            serving=served.digest if served else "",
            previous=self._slots.get(model).previous,
            bundle=served.bundle if served else "",
            stratum=served.stratum if served else "",
            error=error,
        )
        self._announce()

    def _announce(self) -> None:
        for callback in self.changed:
            callback()


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Lets a step end even when its caller is cancelled: neither a thread nor a switch may stop half-way."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
