"""The update of a node: from a desired document to models that answer, step by step, each undone on failure."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from contracts.errors import FoothillError
from contracts.manifest import digest_of
from contracts.messages import Desired, ModelPhase, ModelReport
from edge_node.loader import Loader, watched
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
    waiting,
)
from edge_node.whole import whole
from runtime.links.bundles import BundleStore, NoSpace
from runtime.serving.hosting import ModelHost
from runtime.serving.loaded import LoadedModel

log = logging.getLogger(__name__)

Fetch = Callable[[str, str, bytes | None], Awaitable[Path]]
"""(model, digest, manifest if at hand) to the verified bundle directory in the store."""

MOST_CRASHES = 1
_WATCH_EVERY_S = 0.05


def refusal(desired: Desired, *, node: str, taken: int, document: str, now_s: float) -> str:
    """Why a desired document is not followed; "" when it is. The one taken last may come again, asking for the same:
    `document` is its `order_of`, "" where that is not known."""
    if desired.node != node:
        return f"it is for node {desired.node[:80]!r}"
    if desired.sequence < taken:
        return f"its sequence {desired.sequence} is below {taken}, which was taken before"
    if desired.sequence == taken and document and order_of(desired) != document:
        return (
            f"another document of sequence {taken} was taken before, and this one asks for something else: two fleet "
            f"managers sign with one key, or one was restored from a copy. Start the rollout again"
        )
    if now_s > desired.expires_at_s:
        return f"it expired {now_s - desired.expires_at_s:.0f} s ago; the fleet must issue it again"
    return ""


def order_of(desired: Desired) -> str:
    """The digest of what a document asks for. It may be issued anew under its sequence to live longer."""
    return digest_of(msgspec.json.encode(desired.models, order="sorted"))


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
        loader: Loader,
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
        self._loader = loader
        self._rule = rule
        self._serving = serving
        self._clock = clock
        self._wall = wall
        self._sequence = slots.sequence
        self._document = slots.document
        self._refused: Desired | None = None
        self._working: set[str] = set()
        self._waiting: set[str] = set()
        self._loading = asyncio.Lock()
        self._collecting = asyncio.Lock()
        self._probations: set[asyncio.Task[None]] = set()

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
        await self._sweep()
        for model, slot in self._slots.models.items():
            await self._note(model, crashed(slot))
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
        self._announce()
        begun = await self._on_disk(lambda: self._slots.begin(desired.sequence, self._document))
        await self.end_probations()
        retired = [await self._retire(model) for model in set(self._slots.models) - set(desired.models)]
        ends = await asyncio.gather(
            *(self._update(model, digest, manifests.get(digest)) for model, digest in desired.models.items())
        )
        self._waiting = {digest for digest, end in zip(desired.models.values(), ends, strict=True) if not end}
        await self._drop_unused()
        return begun and all(retired) and all(ends) and await self._on_disk(lambda: self._slots.take(desired.sequence))

    async def promote(self, model: str, loaded: LoadedModel) -> bool:
        """Serves another artifact of the bundle that is served and has passed probation.

        Takes `loaded` over. False, and it is closed, when that bundle is not served any more.
        """
        async with self._loading:
            if not self._is_current(model, loaded.digest) or not self._slots.get(model).proven:
                await asyncio.to_thread(loaded.close)
                return False
            await self._serve(model, watched(loaded))
            self._tell(model, loaded.digest, "active")
        return True

    async def stop(self) -> None:
        """Before a clean end of the process."""
        await self.end_probations()
        for model, slot in self._slots.models.items():
            await self._note(model, stopped(slot))

    async def _update(self, model: str, digest: str, manifest: bytes | None) -> bool:
        """One model's story. False when a step failed that may succeed later."""
        self._working.add(digest)
        try:
            if await self._is_settled(model, digest):
                return True
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
            return await self._fail(model, digest, _disk_fails(error))
        except Exception as error:
            log.exception("updating %s to %s failed", model, digest)
            return await self._fail(model, digest, FoothillError("internal", f"{type(error).__name__}: {error}"))
        finally:
            self._working.discard(digest)
        return True

    async def _fetch(self, model: str, digest: str, manifest: bytes | None) -> None:
        """On a full disk what nobody needs makes room, once."""
        self._tell(model, digest, "fetching")
        try:
            await self._fetch_bundle(model, digest, manifest)
        except NoSpace as error:
            log.warning("%s: %s Dropping what is not needed.", model, error.message)
            await self._drop_unused()
            await self._fetch_bundle(model, digest, manifest)

    async def _verify(self, model: str, digest: str, manifest: bytes | None) -> None:
        """Reads the stored bundle again; a copy that went bad on this disk is fetched once more."""
        self._tell(model, digest, "verifying")
        try:
            await asyncio.to_thread(self._store.verify, digest)
        except FoothillError as error:
            log.warning("%s Fetching it again.", error.message)
            await whole(asyncio.to_thread(self._store.remove, digest))
            await self._fetch(model, digest, manifest)
            await asyncio.to_thread(self._store.verify, digest)

    async def _load_and_test(self, model: str, digest: str) -> LoadedModel:
        """Opens the bundle and holds it to its tests, with a trial open: a crash here is counted.

        Where memory is short, what serves may have to go first; `_fail` brings it back.
        """
        self._tell(model, digest, "testing")
        slot = self._slots.get(model)
        if crashes_of(slot, digest) > MOST_CRASHES:
            raise FoothillError("bad_bundle", f"The node died {crashes_of(slot, digest)} times while it loaded this.")
        instead = await self._loader.way_in(model, digest) == "instead"
        await self._save(model, tried(slot, digest, self._sequence))
        if instead:
            await self._make_way(model, digest)
        return await self._tested(model, digest)

    async def _make_way(self, model: str, digest: str) -> None:
        log.warning("%s: memory is short, so what serves is unloaded before %s is loaded", model, digest)
        await whole(self._host.retire(model, back_soon="memory is short, and its next bundle is loaded in its place."))
        self._tell(model, digest, "testing", "Memory is short: nothing answers while this is loaded.")

    async def _tested(self, model: str, digest: str) -> LoadedModel:
        loaded = await self._loader.load(digest)
        try:
            await self._loader.check_latency(model, loaded)
        except BaseException:
            await whole(asyncio.to_thread(loaded.close))
            raise
        return watched(loaded)

    async def _activate(self, model: str, loaded: LoadedModel) -> None:
        """The slot first: should the new bundle kill the node, its next start knows which one it was."""
        try:
            await self._save(model, promoted(self._slots.get(model), loaded.digest, self._sequence))
        except OSError:
            await whole(asyncio.to_thread(loaded.close))
            raise
        await self._serve(model, loaded)

    async def _pass_probation(self, model: str) -> None:
        slot = self._slots.get(model)
        if not slot.proven:
            self._tell(model, slot.current, "probation")
            health = await self._watch(model)
            if health.errors:
                await self._revert(model, health.error)
                return
            await self._note(model, confirmed(self._slots.get(model)))
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
        """Back to the previous bundle, which is in the store: this needs no network, and no room on the disk."""
        slot = self._slots.get(model)
        bad, error = slot.current, f"It failed on probation: {why}"
        log.error("%s: %s goes back to %s. %s", model, bad, slot.previous or "nothing", error)
        await self._note(model, reverted(slot, self._sequence, error))
        await self._serve_first_of(model, slot.previous)
        self._tell(model, bad, "reverted", error)

    async def _fail(self, model: str, digest: str, error: FoothillError) -> bool:
        """The old bundle goes on. What may succeed later is left to the next call."""
        slot = self._slots.get(model)
        if error.retryable:
            log.warning("%s: %s waits: %s", model, digest, error.message)
            slot = await self._note(model, waiting(slot, digest))
            await self._bring_back(model, slot)
            self._tell(model, digest, "fetching", error.message)
            return False
        log.error("%s: %s is refused: %s", model, digest, error.message)
        if slot.current == digest:
            slot = await self._note(model, reverted(slot, self._sequence, error.message))
            if not self._is_served(model, slot.current):
                await self._serve_first_of(model, slot.current)
        else:
            slot = await self._note(model, refused(slot, digest, self._sequence, error.message))
            await self._bring_back(model, slot)
        self._tell(model, digest, "failed", error.message)
        return True

    async def _bring_back(self, model: str, slot: Slot) -> None:
        """What had to make way for a bundle that failed."""
        if model not in self._host.models:
            await self._serve_first_of(model, slot.current, slot.previous)

    async def _retire(self, model: str) -> bool:
        """False when the disk did not take it."""
        log.info("%s is no longer desired here", model)
        if model in self._host.models:
            await whole(self._host.retire(model))
        self._host.give_up(model)
        gone = await self._on_disk(lambda: self._slots.remove(model))
        self.reports.pop(model, None)
        self._announce()
        return gone

    async def _restore_model(self, model: str) -> None:
        slot = self._slots.get(model)
        if slot.trial is not None and crashes_of(slot, slot.current) > MOST_CRASHES:
            error = f"The node died {slot.trial.crashes} times while it was on probation."
            log.error("%s: %s goes back to %s. %s", model, slot.current, slot.previous or "nothing", error)
            slot = await self._note(model, reverted(slot, slot.trial.sequence, error))
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
            await whole(self._host.retire(model))
        self._host.give_up(model)
        return " ".join(errors)

    async def _serve_stored(self, model: str, digest: str) -> str:
        """What keeps a stored bundle from being served; "" when it is. Whatever it is, another one may do."""
        try:
            await asyncio.to_thread(self._store.verify, digest)
            await self._serve(model, watched(await self._loader.load(digest)))
        except FoothillError as error:
            return error.message
        except OSError as error:
            return _disk_fails(error).message
        except Exception as error:
            log.exception("serving stored bundle %s of %s failed", digest, model)
            return f"{type(error).__name__}: {error}"
        return ""

    async def _serve(self, model: str, loaded: LoadedModel) -> None:
        self._serving(loaded)
        await whole(self._host.activate(model, loaded))

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

    async def _drop_unused(self) -> None:
        """Whatever no slot names and no update works on. That a disk does not let go of it fails no update.

        Not while the disk names other slots: the next life would miss what they name.
        """
        if not self._slots.written:
            return
        async with self._collecting:
            used = self._working.union(*(slot.digests() for slot in self._slots.models.values()))
            coming = self._working | self._waiting
            await self._on_disk(lambda: self._store.collect(used, coming))

    async def _sweep(self) -> None:
        await self._on_disk(self._store.sweep)

    async def end_probations(self) -> None:
        """Ends the watch over bundles that were on probation at the start; the slots go on saying that they are.

        An apply watches for itself, and what it does not speak of is retired.
        """
        probations, self._probations = self._probations, set()
        for task in probations:
            task.cancel()
        await asyncio.gather(*probations, return_exceptions=True)

    async def _save(self, model: str, slot: Slot) -> Slot:
        """Raises OSError: what comes after must not happen before this is on disk."""
        await whole(asyncio.to_thread(self._slots.put, model, slot))
        return slot

    async def _note(self, model: str, slot: Slot) -> Slot:
        """As `_save`, for what has to go on where the disk takes nothing."""
        if not await self._on_disk(lambda: self._slots.put(model, slot)):
            self._slots.hold(model, slot)
        return slot

    async def _on_disk(self, write: Callable[[], None]) -> bool:
        """Whether the disk took it; serving goes on without."""
        try:
            await whole(asyncio.to_thread(write))
        except OSError as error:
            log.error("%s", _disk_fails(error).message)
            return False
        return True

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
            provider=served.provider if served else "",
        )
        self._announce()

    def _announce(self) -> None:
        for callback in self.changed:
            callback()


def _disk_fails(error: OSError) -> FoothillError:
    return FoothillError("unavailable", f"This node's disk fails: {error}.")
