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

from contracts.errors import FoothillError
from edge_node.cameras.camera import Camera
from edge_node.cameras.cameras import Cameras
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.feed import Feed, Said, type_of
from edge_node.cameras.lent import Lent
from edge_node.cameras.metrics import CameraMetrics
from edge_node.cameras.observers.choice import observer_for, warm_up
from edge_node.cameras.observers.observer import Observer
from edge_node.cameras.outlets.mqtt import EVENTS_WAITING, MqttOutlet, last_will
from edge_node.cameras.roster import Roster
from edge_node.cameras.web.routes import CameraRoutes, for_browsers
from edge_node.pipelines import Pipelines
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError
from runtime.links.trust.tls import TlsConfig, checked
from runtime.serving.models.hosting import own_cores
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""Between looks at the configuration file."""
_LONGEST_PAUSE_S = 1.5

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
        base: Path = Path(),
        file: Path | None = None,
        read_file: ReadFile = tuple,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.feed = Feed(node, int(wall() * 1000))
        self._pipelines = pipelines
        self._base = base
        self._file = file
        self._read_file = read_file
        self._numbers = count(1)
        self._workers = ThreadPoolExecutor(max(2, own_cores()), thread_name_prefix="cameras")
        self.cameras = Cameras(self._build, self.feed, self._workers)
        self._roster = Roster(self.cameras, Lent(state_dir), from_file)
        self._routes = CameraRoutes(self.cameras, self._roster, self.feed, admin_token=admin_token)
        self._outlet = MqttOutlet(node, self.feed, _open_port(broker_url, node, tls)) if broker_url else None
        self.feed.listeners.append(self._count)
        registry.register(CameraMetrics(self.cameras.there, self._lost_events))

    def _lost_events(self) -> dict[str, int]:
        return {"mqtt": self._outlet.dropped} if self._outlet is not None else {}

    def live_in(self, app: web.Application) -> None:
        app.middlewares.insert(0, for_browsers)
        app.add_routes(self._routes.routes())
        app.on_shutdown.append(self._routes.end)
        app.cleanup_ctx.append(self._life)

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        await asyncio.to_thread(warm_up)
        await self._roster.start()
        looking = asyncio.create_task(self._keep_looking())
        yield
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await self.cameras.close()
        if self._outlet is not None:
            await self._outlet.stop()

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

    def _build(self, config: CameraConfig) -> Camera:
        return Camera(
            config,
            pipelines=self._pipelines,
            feed=self.feed,
            observe=partial(self._observe, config),
            workers=self._workers,
            base=self._base,
            rng=random.Random(),
        )

    def _observe(self, config: CameraConfig, loaded: LoadedModel) -> Observer:
        return observer_for(config, loaded, self.feed, lambda: self.feed.event_id(config.name, next(self._numbers)))


def _open_port(broker_url: str, node: str, tls: TlsConfig) -> MqttPort:
    try:
        return MqttPort(
            broker_url,
            f"cameras-{node}",
            will=last_will(node),
            queue_limit=EVENTS_WAITING,
            longest_pause_s=_LONGEST_PAUSE_S,
            tls=checked(tls),
        )
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error


def _stamp(path: Path) -> tuple[int, int] | None:
    """None while it is not there: an editor may be about to put it back."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size
