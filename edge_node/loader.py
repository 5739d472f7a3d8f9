"""A stored bundle on its way into memory: whether it fits, whether it answers right, whether it answers in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.errors import FoothillError
from edge_node.latency import LatencyRule, measure, too_slow
from edge_node.probation import Health, WatchedEngine
from edge_node.room import Room, Way, WhenShort, needed_bytes, way_in
from edge_node.whole import whole
from runtime.links.bundles.store import BundleStore
from runtime.serving.engines.providers import Wish
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel, pick_artifact

log = logging.getLogger(__name__)

OpenBundle = Callable[[Path, str], LoadedModel]
"""A verified bundle directory and its digest to a model that has passed its golden test; blocks. Raises FoothillError
`bad_bundle`."""


class Loader:
    """What it hands out counts its runs only from then on: its tests are no requests."""

    def __init__(
        self,
        store: BundleStore,
        host: ModelHost,
        open_bundle: OpenBundle,
        *,
        target: str,
        room: Room,
        latency: LatencyRule,
        wish: Wish | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._host = host
        self._open_bundle = open_bundle
        self._target = target
        self._room = room
        self._latency = latency
        self._wish = wish
        self._clock = clock

    async def way_in(self, model: str, digest: str, *, when_short: WhenShort | None = None) -> Way:
        """Beside what serves the model, or instead of it. Raises FoothillError `unavailable`, `bad_bundle`.

        `when_short` None: as the node is told.
        """
        manifest = await asyncio.to_thread(self._store.manifest, digest)
        needed = needed_bytes(manifest, pick_artifact(manifest, self._target, self._wish))
        room = msgspec.structs.replace(self._room, when_short=when_short or self._room.when_short)
        return await asyncio.to_thread(way_in, needed, room, replaces=model in self._host.models)

    async def verify(self, digest: str) -> None:
        """Every byte of a stored bundle but its artifact, which is checked when it is read: mostly what is kept of it
        is opened in its place. Raises FoothillError `bad_bundle`."""
        manifest = await asyncio.to_thread(self._store.manifest, digest)
        artifact = pick_artifact(manifest, self._target, self._wish)
        await asyncio.to_thread(self._store.verify, digest, but=(artifact.file,))

    async def load(self, digest: str) -> LoadedModel:
        """Raises FoothillError; a cancelled caller waits until the thread has ended."""
        return await whole(asyncio.to_thread(self._open, digest))

    async def check_latency(self, model: str, loaded: LoadedModel) -> None:
        """Raises FoothillError `bad_bundle` for a model that is out of proportion on this machine."""
        if not self._latency.max_slowdown:
            return
        latencies = await measure(model, loaded, self._host, self._clock)
        against = too_slow(latencies, self._latency)
        if against:
            raise FoothillError(
                "bad_bundle", f"Bundle {loaded.manifest.reference} is not served here: {against}. See max_slowdown."
            )
        log.info("%s passed its tests: %s", loaded.manifest.reference, latencies)

    def _open(self, digest: str) -> LoadedModel:
        return self._open_bundle(self._store.path(digest), digest)


def watched(loaded: LoadedModel, health: Health | None = None) -> LoadedModel:
    """From now on its runs and failures are counted, on from `health`."""
    loaded.engine = WatchedEngine(loaded.engine, health)
    return loaded
