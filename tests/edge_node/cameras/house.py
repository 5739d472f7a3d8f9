"""A node's parts in this process with cameras: a real model, and everything that is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TypeVar

import msgspec
from aiohttp import web

from contracts.camera_events import CameraMessage, StateMessage
from contracts.manifest import Postprocess
from edge_node.cameras.camera import Camera
from edge_node.cameras.cameras import Cameras
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.escalation.amending import Amending
from edge_node.cameras.escalation.asks import Asks
from edge_node.cameras.escalation.permission import Permission
from edge_node.cameras.feed import Feed, Said
from edge_node.cameras.lent import Lent
from edge_node.cameras.observers.choice import observer_for
from edge_node.cameras.observers.observer import Observer
from edge_node.cameras.roster import Roster
from edge_node.cameras.secrets import check_lent
from edge_node.cameras.snapshots.config import SnapshotsConfig
from edge_node.cameras.snapshots.taking import Snapshots
from edge_node.cameras.ways import Ways
from edge_node.cameras.web.routes import CameraRoutes
from edge_node.pipelines import Pipelines
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.errors import error_middleware
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import TARGET, make_classifier, make_detector

EPOCH = 0x1234
SEVEN = [60.0 if label == 7 else 0.0 for label in range(10)]
M = TypeVar("M", bound=CameraMessage)


class House:
    """Opened and closed by whoever makes it. `said` is everything in its order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[Said] = []
        self.runner: web.AppRunner | None = None

    async def open(self) -> House:
        self.host, self.telemetry = ModelHost(drain_s=1.0), Telemetry()
        self.upstreams = Upstreams()
        self.holder = Holder(
            node="fra",
            cloud_urls=(),
            upstreams=self.upstreams,
            certificates=Certificates(),
            hop_key=b"k" * 32,
            hop_name="node",
            publish_audit=lambda audit: None,
            telemetry=self.telemetry,
            rng=random.Random(1),
            audit_rate=0.0,
        )
        settings = ServingSettings(node="fra", tier="edge", region="eu-central", hop_key=b"k" * 32)
        self.pipelines = Pipelines(self.host, self.holder, settings, self.telemetry, late=None)
        self.feed = Feed("fra", EPOCH)
        self.feed.listeners.append(self.said.append)
        self.workers = ThreadPoolExecutor(2)
        numbers, asks = count(1), Asks()
        self.amending = Amending(self.feed, lambda asked, word, verdict: None)
        self.ways = Ways(
            self.pipelines,
            self.feed,
            self.amending,
            self.workers,
            lambda camera: self.feed.event_id(camera, next(numbers)),
            Snapshots(self.directory / "snapshots", SnapshotsConfig(), self.workers, lambda camera, event, jpeg: None),
            asks,
            Permission(lambda name: None, self.pipelines.may_ask),
        )
        self.cameras = Cameras(self._build, self.feed, asks)
        return self

    async def serve(self, model: str = "digits", bias: list[float] | None = None) -> None:
        """A classifier of the weights' own taste, or one that says what its `bias` says."""
        bundle = self.directory / f"bundle-{len(list(self.directory.iterdir()))}"
        digest = make_classifier(bundle, bias=bias)
        await self.host.activate(model, LoadedModel.open(bundle, digest, target=TARGET, threads=1))

    async def listen(
        self,
        from_file: tuple[CameraConfig, ...] = (),
        *,
        admin_token: str = "admin",
        check: Callable[[CameraConfig], None] = lambda config: None,
    ) -> str:
        """The URL of the routes."""
        checks = (check, lambda config: check_lent(config, self.directory))
        self.roster = Roster(self.cameras, Lent(self.directory), from_file, checks=checks)
        await self.roster.start()
        routes = self.routes = CameraRoutes(
            self.cameras, self.roster, self.feed, admin_token=admin_token, view=lambda *_: None, beat_s=0.2
        )
        app = web.Application(middlewares=[error_middleware("fra")])
        app.add_routes(routes.routes())
        app.on_shutdown.append(routes.end)
        self.runner, url = await start_app(app, "127.0.0.1", 0, name="fra", drain_s=2.0)
        return url

    async def serve_detector(self) -> None:
        bundle = self.directory / "detector"
        digest = make_detector(bundle)
        await self.host.activate("things", LoadedModel.open(bundle, digest, target=TARGET, threads=1))

    async def serve_embedding(self) -> None:
        bundle = self.directory / "embedding"
        head = Postprocess("logits", "vector")
        digest = make_classifier(bundle, tier="cloud", task="embedding", postprocess=head, labels=())
        await self.host.activate("digits", LoadedModel.open(bundle, digest, target=TARGET, threads=1))

    async def close(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
        await self.cameras.close()
        await self.ways.snapshots.close()
        self.workers.shutdown(wait=False)
        await self.holder.close()
        await self.upstreams.close()
        await self.host.close()

    def places(self) -> int:
        """How many listen or look."""
        return self.routes.listeners

    def messages(self, kind: type[M], camera: str) -> list[M]:
        return [said.message for said in self.said if said.camera == camera and isinstance(said.message, kind)]

    def states(self, camera: str) -> list[str]:
        """Each as often as it began."""
        told = [message.state for message in self.messages(StateMessage, camera)]
        return [state for at, state in enumerate(told) if at == 0 or told[at - 1] != state]

    async def until(self, true: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not true():  # noqa: ASYNC110 - figures have no event
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), 30)

    def _build(self, config: CameraConfig) -> Camera:
        def observe(loaded: LoadedModel) -> Observer:
            return observer_for(config, loaded, self.feed, lambda: self.ways.event_id(config.name))

        return Camera(config, ways=self.ways, observe=observe, rng=random.Random(1))


def pattern(name: str = "door", **keys: object) -> CameraConfig:
    return msgspec.convert({"name": name, "url": "pattern:?fps=50", "model": "digits", **keys}, CameraConfig)
