"""A node's parts in this process, with cameras that see blocks walk, and a cloud behind a socket that may be away."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.rtsp.clips import walkers
from contracts.camera_events import CameraMessage, PictureEvent, TrackEvent
from contracts.manifest import Isotonic
from contracts.messages import Audit, Late
from contracts.topics import CameraKind
from edge_node.cameras.camera import Camera
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.part import CamerasPart
from edge_node.cameras.snapshots.config import SnapshotsConfig
from edge_node.late import LatePart
from edge_node.pipelines import Pipelines
from edge_node.spool_file import SpoolConfig
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Answer, Request, Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.tls import TlsConfig
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import TARGET, make_classifier, make_detector

HOP_KEY = b"k" * 32
SEVEN = [60.0 if label == 7 else 0.0 for label in range(10)]
M = TypeVar("M", bound=CameraMessage)


class Uplink(Upstreams):
    """The node's own way out, and what took it."""

    def __init__(self, sent: list[Request]) -> None:
        super().__init__()
        self._sent = sent

    async def send(self, base_url: str, request: Request, **options: Any) -> Answer:
        self._sent.append(request)
        return await super().send(base_url, request, **options)


class Street:
    """A second one in the same directory is the node's next life; `cloud_port` is then that of the first."""

    def __init__(self, directory: Path, *, cloud_port: int = 0, audit_rate: float = 0.0, broker_url: str = "") -> None:
        self.directory = directory
        self.broker_url = broker_url
        self.audit_rate = audit_rate
        self.sent: list[Request] = []
        self.heard: list[CameraMessage] = []
        self.audits: list[Audit] = []
        self.published: list[Late] = []
        self.forgetters: list[Callable[[str, CameraKind], None]] = []
        self.certificates = Certificates()
        self.cloud_port = cloud_port or _free_port()
        self.cloud: web.AppRunner | None = None

    async def open(self) -> Street:
        self.host, self.telemetry, self.spool_figures = ModelHost(drain_s=1.0), Telemetry(), CollectorRegistry()
        self.upstreams = Uplink(self.sent)
        self.holder = Holder(
            node="shop",
            cloud_urls=(f"http://127.0.0.1:{self.cloud_port}",),
            upstreams=self.upstreams,
            certificates=self.certificates,
            hop_key=HOP_KEY,
            hop_name="node",
            publish_audit=self.audits.append,
            telemetry=self.telemetry,
            rng=random.Random(1),
            audit_rate=self.audit_rate,
            cloud_region="eu-central",
        )
        settings = ServingSettings(node="shop", tier="edge", region="eu-central", hop_key=HOP_KEY)
        late = LatePart(
            self.directory, SpoolConfig(per_s=100.0), node="shop", ask=self.holder.ask_late, publish=self._publish,
            registry=self.spool_figures, rng=random.Random(1),
        )  # fmt: skip
        pipelines = Pipelines(self.host, self.holder, settings, self.telemetry, late=late)
        self.part = CamerasPart(
            "shop", (), pipelines, state_dir=self.directory, broker_url=self.broker_url, tls=TlsConfig(),
            registry=self.telemetry.registry, admin_token="admin", snapshots=SnapshotsConfig(), base=self.directory,
        )  # fmt: skip
        self.part.feed.listeners.append(lambda said: self.heard.append(said.message))
        self.part.feed.forgetters += self.forgetters
        app = create_app(self.host, settings, holder=self.holder, telemetry=self.telemetry, spool=late.spooling)
        late.live_in(app)
        self.part.live_in(app)
        self.node, self.url = await start_app(app, "127.0.0.1", 0, name="shop", drain_s=0.1)
        return self

    async def watch(self, name: str = "door", **keys: Any) -> Camera:
        """Blocks that walk, 20 pictures a second, and again after two seconds."""
        clip = self.directory / "walkers.mp4"
        if not clip.exists():
            write_mp4(clip)
        told = {"name": name, "url": str(clip), "loop": True, "model": "things", "update_every_s": 0.2, **keys}
        await self.part.cameras.put(msgspec.convert(told, CameraConfig))
        return self.part.cameras.there[name]

    async def serve(self, model: str = "things", **classifier: Any) -> LoadedModel:
        """At the edge: the detector of blocks, whose scores stand for a tenth of themselves by its rule; or a
        classifier as it is told."""
        bundle = self.directory / f"edge-{model}"
        if not bundle.exists():
            rule = Isotonic((0.0, 1.0), (0.0, 0.1))
            digest = make_classifier(bundle, **classifier) if classifier else make_detector(bundle, isotonic=rule)
            (self.directory / f"edge-{model}.digest").write_text(digest)
        digest = (self.directory / f"edge-{model}.digest").read_text()
        loaded = LoadedModel.open(bundle, digest, target=TARGET, threads=1)
        await self.host.activate(model, loaded)
        return loaded

    async def start_cloud(self, *, sees: str = "person", names: bool = False) -> None:
        """It finds the same blocks and calls them `sees`; or it `names` whatever it gets a 7."""
        self.cloud_host = ModelHost(drain_s=1.0)
        bundle = self.directory / f"cloud-{sees}-{names}"
        if names:
            digest = make_classifier(bundle, name="namer", tier="cloud", model="things", bias=SEVEN)
        else:
            digest = make_detector(bundle, name="seer", tier="cloud", labels=(sees,))
        await self.cloud_host.activate("things", LoadedModel.open(bundle, digest, target=TARGET, threads=1))
        app = create_app(
            self.cloud_host,
            ServingSettings(node="cloud", tier="cloud", region="eu-central", hop_key=HOP_KEY),
            holder=None,
            telemetry=Telemetry(),
        )
        self.cloud, _ = await start_app(app, "127.0.0.1", self.cloud_port, name="cloud", drain_s=0.1)

    async def stop_cloud(self) -> None:
        if self.cloud is not None:
            await self.cloud.cleanup()
            await self.cloud_host.close()
            self.cloud = None

    async def close(self) -> None:
        await self.node.cleanup()
        await self.holder.close()
        await self.upstreams.close()
        await self.host.close()
        await self.stop_cloud()

    def said(self, kind: type[M], phase: str) -> list[M]:
        return [
            message for message in self.heard if isinstance(message, kind) and getattr(message, "phase", "") == phase
        ]

    def spooled(self) -> str:
        return generate_latest(self.spool_figures).decode()

    def tracks(self, phase: str) -> list[TrackEvent]:
        return self.said(TrackEvent, phase)

    def pictures(self, phase: str) -> list[PictureEvent]:
        return self.said(PictureEvent, phase)

    def of(self, event: str) -> list[CameraMessage]:
        return [message for message in self.heard if getattr(message, "event", "") == event]

    def _publish(self, late: Late) -> bool:
        self.published.append(late)
        return True


def write_mp4(path: Path, *, fps: int = 20, seconds: int = 2) -> None:
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream("libx264", rate=fps))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"crf": "18", "preset": "ultrafast", "bf": "0"}
        for picture in walkers(fps * seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
