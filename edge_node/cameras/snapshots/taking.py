"""Takes the snapshots: in a worker, out of the picture in which an event has begun."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from contracts.camera_events import Box
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.escalation.evidence import Framing, evidence_of
from edge_node.cameras.observers.found import things_in
from edge_node.cameras.snapshots.album import Album
from edge_node.cameras.snapshots.config import SnapshotsConfig
from edge_node.cameras.sources.shot import Shot
from edge_node.pipelines import Looked

log = logging.getLogger(__name__)

MOST_AT_ONCE = 64
EXPIRE_S = 600.0
_LAST_S = 2.0

Publish = Callable[[CameraConfig, str, bytes], None]
"""(camera, event, JPEG)."""


class Snapshots:
    """Of all cameras. `workers` encode; the disk has a thread of its own. `lost` counts those that were not kept."""

    def __init__(
        self,
        directory: Path,
        config: SnapshotsConfig,
        workers: Executor,
        publish: Publish,
        *,
        wall: Callable[[], float] = time.time,
        expire_s: float = EXPIRE_S,
    ) -> None:
        self._album = Album(directory, config, wall)
        self._workers = workers
        self._publish = publish
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._expiring: asyncio.Task[None] | None = None
        self._expire_s = expire_s
        self._fails = False
        self.lost = 0

    @property
    def taken_bytes(self) -> int:
        return self._album.taken_bytes

    async def open(self) -> None:
        await self._on_disk(self._album.open)
        self._expiring = asyncio.create_task(self._keep_expiring())

    def take(self, camera: CameraConfig, event: str, shot: Shot, looked: Looked | None, box: Box | None) -> None:
        """Does not block. What cannot be done now is not done, and counted."""
        if len(self._tasks) >= MOST_AT_ONCE:
            self.lost += 1
            return
        key = (camera.name, event)
        task = asyncio.create_task(self._take(camera, event, shot, looked, box))
        self._tasks[key] = task
        task.add_done_callback(partial(self._taken, key))

    async def get(self, camera: str, event: str) -> bytes | None:
        """Once it is there, where it is on its way."""
        task = self._tasks.get((camera, event))
        if task is not None:
            await asyncio.wait({task}, timeout=_LAST_S)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._disk, self._album.get, camera, event)
        except OSError as error:
            log.warning("the snapshot of %s cannot be read: %s", event, error)
            return None

    async def close(self) -> None:
        if self._expiring is not None:
            self._expiring.cancel()
            await asyncio.gather(self._expiring, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_LAST_S)
        await asyncio.to_thread(self._disk.shutdown)

    def _taken(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and task.exception() is not None:
            self.lost += 1
            log.error("a snapshot of %s was lost", key[0], exc_info=task.exception())

    async def _take(self, camera: CameraConfig, event: str, shot: Shot, looked: Looked | None, box: Box | None) -> None:
        config, loop = camera.snapshots, asyncio.get_running_loop()
        framing = Framing(config.margin, config.longest_side, config.quality)

        def encoded() -> bytes:
            shown = box if config.crop else None
            return evidence_of(shot, shown, framing, camera.hiding, things_in(looked, shot.size)).jpeg

        jpeg = await loop.run_in_executor(self._workers, encoded)
        self._publish(camera, event, jpeg)
        await self._on_disk(lambda: self._album.put(camera.name, event, jpeg))

    async def _keep_expiring(self) -> None:
        while True:
            await asyncio.sleep(self._expire_s)
            await self._on_disk(self._album.expire)

    async def _on_disk(self, work: Callable[[], None]) -> None:
        """A disk that is full costs the picture, and one line in the log until it is well again."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, work)
        except OSError as error:
            self.lost += 1
            if not self._fails:
                log.warning("snapshots are not kept now: %s", error)
            self._fails = True
        else:
            self._fails = False
