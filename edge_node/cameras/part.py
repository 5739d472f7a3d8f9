"""The cameras of a node put together: what watches, what is said and where, and their life with the application."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from contracts.camera_events import PictureEvent, RuleEvent, StateMessage, TrackEvent, Verdict
from contracts.errors import FoothillError
from edge_node.cameras.camera import Camera
from edge_node.cameras.cameras import Cameras
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.departures import Departures
from edge_node.cameras.escalation.amending import Amending
from edge_node.cameras.escalation.asks import Asks
from edge_node.cameras.escalation.permission import Permission
from edge_node.cameras.escalation.words import Asked, Word
from edge_node.cameras.feed import Feed, Said, type_of
from edge_node.cameras.leaving import Leaving
from edge_node.cameras.lent import Lent
from edge_node.cameras.metrics import CameraMetrics
from edge_node.cameras.observers.choice import observer_for, warm_up
from edge_node.cameras.observers.observer import Observer
from edge_node.cameras.outlets.home_assistant_config import HomeAssistantConfig
from edge_node.cameras.outlets.outlets import Outlets
from edge_node.cameras.outlets.webhook_config import WebhookConfig
from edge_node.cameras.recorded import Recorded
from edge_node.cameras.recording.config import RecordingConfig
from edge_node.cameras.recording.part import RecordingPart
from edge_node.cameras.roster import Roster
from edge_node.cameras.scene.config import SceneConfig
from edge_node.cameras.secrets import check_lent
from edge_node.cameras.snapshots.config import SnapshotsConfig
from edge_node.cameras.snapshots.taking import Snapshots
from edge_node.cameras.ways import Ways
from edge_node.cameras.web.clips import ClipRoutes
from edge_node.cameras.web.hosts import known_hosts
from edge_node.cameras.web.routes import CameraRoutes, for_browsers
from edge_node.cameras.web.snapshots import SnapshotRoutes
from edge_node.pipelines import Pipelines
from runtime.links.process.settings import SettingsError
from runtime.links.trust.tls import TlsConfig
from runtime.serving.models.hosting import own_cores
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)

NOT_RECORDED = RecordingConfig()
NO_HOME = HomeAssistantConfig()
LOOK_AGAIN_S = 1.0
"""Between looks at the configuration file."""

ReadFile = Callable[[], tuple[CameraConfig, ...]]
"""The cameras that the configuration file names now; blocks. Raises SettingsError."""


class CamerasPart:
    """`broker_url` "" says nothing on MQTT; `file` None is not looked at again. Relative paths begin at `base`."""

    def __init__(
        self,
        node: str,
        from_file: tuple[CameraConfig, ...],
        pipelines: Pipelines,
        *,
        state_dir: Path,
        broker_url: str,
        tls: TlsConfig,
        registry: CollectorRegistry,
        admin_token: str,
        snapshots: SnapshotsConfig,
        broker_region: str = "",
        base: Path = Path(),
        file: Path | None = None,
        read_file: ReadFile = tuple,
        recording: RecordingConfig = NOT_RECORDED,
        webhooks: tuple[WebhookConfig, ...] = (),
        home_assistant: HomeAssistantConfig = NO_HOME,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.feed = Feed(node, int(wall() * 1000))
        self._file = file
        self._read_file = read_file
        self._numbers = count(1)
        self._workers = ThreadPoolExecutor(max(2, own_cores()), thread_name_prefix="cameras")
        amending = Amending(self.feed, self._amended)
        pipelines.hearers.append(amending.late)
        self._departures = Departures(state_dir)
        self._broker_region = broker_region
        self._snapshots = Snapshots(state_dir / "snapshots", snapshots, self._workers, self._publish)
        self.asks = Asks()
        permission = Permission(self._config_of, pipelines.may_ask)
        pipelines.deniers.append(permission.denies)
        self._release = pipelines.hold()
        self._ways = Ways(
            pipelines, self.feed, amending, self._workers, self._event_id, self._snapshots, self.asks, permission, base
        )
        self.cameras = Cameras(self._build, self.feed, self.asks)
        self._leaving = Leaving(self._departures, self.cameras.there)
        pipelines.departures.append(self._leaving.asked)
        self._recording = Recorded(RecordingPart(state_dir, recording), self.feed, registry)
        checks = (self._recording.check, lambda config: check_lent(config, state_dir))
        self._roster = Roster(self.cameras, Lent(state_dir), from_file, checks=checks)
        self._routes = CameraRoutes(
            self.cameras, self._roster, self.feed, admin_token=admin_token, view=self._leaving.view
        )
        self._pictures = SnapshotRoutes(self._snapshots, self._leaving.picture)
        self._clips = ClipRoutes(
            self.cameras, self._recording.part, check_admin=self._routes.check_admin, view=self._leaving.view
        )
        self._outlets = Outlets(
            node,
            self.feed,
            self._scene_of,
            state_dir=state_dir,
            broker_url=broker_url,
            tls=tls,
            webhooks=webhooks,
            home_assistant=home_assistant,
        )
        self.feed.listeners += [self._count, self._picture, self._begin]
        registry.register(
            CameraMetrics(self.cameras.there, self._outlets.lost, self._outlets.waiting, lambda: self._snapshots.lost)
        )

    def _config_of(self, name: str) -> CameraConfig | None:
        camera = self.cameras.there.get(name)
        return camera.config if camera is not None else None

    def _scene_of(self, name: str) -> SceneConfig | None:
        config = self._config_of(name)
        return config.scene if config is not None else None

    def live_in(self, app: web.Application, *, allowed_hosts: tuple[str, ...] | None = None) -> None:
        """None: callers are asked who they are, and may call it by any name."""
        app.middlewares.insert(0, for_browsers)
        if allowed_hosts is not None:
            app.middlewares.append(known_hosts(allowed_hosts))
        app.add_routes([*self._routes.routes(), *self._pictures.routes(), *self._clips.routes()])
        app.on_shutdown.append(self._routes.end)
        app.cleanup_ctx.append(self._life)

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        await asyncio.to_thread(warm_up)
        self._departures.start()
        await self._snapshots.open()
        await asyncio.to_thread(self._recording.resume)
        await self._outlets.start()
        await self._roster.start()
        self._release()
        self._outlets.sweep()
        looking = asyncio.create_task(self._keep_looking())
        yield
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        self._outlets.leave_be()
        await self.cameras.close()
        await self._snapshots.close()
        self._workers.shutdown(wait=False)
        await asyncio.to_thread(self._recording.part.close)
        await self._outlets.stop()
        await self._departures.close()

    async def _keep_looking(self) -> None:
        """At the configuration file: a camera that changes there changes here."""
        if self._file is None:
            return
        seen = await asyncio.to_thread(_stamp, self._file)
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            now = await asyncio.to_thread(_stamp, self._file)
            if now is not None and now != seen:
                seen = now
                await self._take_file()

    async def _take_file(self) -> None:
        try:
            await self._roster.reload(await asyncio.to_thread(self._read_file))
        except (SettingsError, FoothillError) as error:
            log.error("cameras stay as they are: %s", error)
        else:
            log.info("cameras are those that %s names now; its other keys are read at the start", self._file)

    def _count(self, said: Said) -> None:
        camera = self.cameras.there.get(said.camera)
        if camera is not None:
            camera.figures.events[type_of(said)] += 1

    def _amended(self, asked: Asked, word: Word, verdict: Verdict) -> None:
        camera = self.cameras.there.get(asked.camera)
        if camera is not None:
            camera.judged(asked.event, verdict, word.label)

    def _picture(self, said: Said) -> None:
        """An event that has a snapshot begins."""
        told, camera = said.message, self.cameras.there.get(said.camera)
        if camera is None or not isinstance(told, TrackEvent | PictureEvent | RuleEvent):
            return
        if told.snapshot and told.phase == "start":
            camera.picture(told.event, told.box if isinstance(told, TrackEvent) else None)

    def _begin(self, said: Said) -> None:
        """A camera begins, or begins anew: a picture that may not be seen under its keys of now stands nowhere."""
        told, camera = said.message, self.cameras.there.get(said.camera)
        if camera is None or not isinstance(told, StateMessage) or told.state != "starting":
            return
        if told.sequence > 1 or not self._may_publish(camera.config):
            self._outlets.no_picture(said.camera)

    def _publish(self, camera: CameraConfig, event: str, jpeg: bytes) -> None:
        """On MQTT, where the camera wants it and its residency allows it; not once it is gone or was changed."""
        there = self.cameras.there.get(camera.name)
        if there is None or there.config != camera or not self._may_publish(camera):
            return
        if self._outlets.picture(camera.name, jpeg):
            self._leaving.picture(camera.name, "snapshot", event, "mqtt", jpeg)

    def _may_publish(self, camera: CameraConfig) -> bool:
        return camera.snapshots.mqtt and (not camera.residency or self._broker_region in camera.residency)

    def _event_id(self, camera: str) -> str:
        return self.feed.event_id(camera, next(self._numbers))

    def _build(self, config: CameraConfig) -> Camera:
        return Camera(
            config,
            ways=self._ways,
            observe=partial(self._observe, config),
            tap=lambda: self._recording.ring_of(config),
            rng=random.Random(),
        )

    def _observe(self, config: CameraConfig, loaded: LoadedModel) -> Observer:
        return observer_for(config, loaded, self.feed, partial(self._event_id, config.name))


def _stamp(path: Path) -> tuple[int, int] | None:
    """None while it is not there: an editor may be about to put it back."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size
