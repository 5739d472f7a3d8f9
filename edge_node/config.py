"""The configuration of an edge node. What it is to the fleet (name, keys, place) comes from its enrolment."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.boards import BOARDS
from contracts.manifest import is_digest, is_name
from contracts.messages import Capabilities
from edge_node.cameras.config import CameraConfig, check_names, check_recording
from edge_node.cameras.outlets.home_assistant_config import HomeAssistantConfig
from edge_node.cameras.outlets.webhook_config import WebhookConfig
from edge_node.cameras.recording.config import RecordingConfig
from edge_node.cameras.snapshots.config import SnapshotsConfig
from edge_node.room import WhenShort
from edge_node.spool_file import SpoolConfig
from runtime.links.access.admission import AuthConfig
from runtime.links.http.https import HttpsConfig
from runtime.links.trust.tls import TlsConfig
from runtime.serving.engines.providers import Choice


class LocalBundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's directory, and the digest that `foothill compile` has told: nothing else is loaded from there."""

    path: str
    digest: str

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise ValueError(
                f"digest {self.digest[:80]!r} must be sha256:<64 hex digits>, as `foothill compile` tells it"
            )


class AloneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[alone]` of a node without a fleet: `bundles` by the model that they serve. With `hop_key_file` a
    cloud tier that has this key believes it to be a node. `audit_rate` is the share of its answers that both tiers
    give."""

    node: str
    region: str = ""
    hop_key_file: str = ""
    audit_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    bundles: dict[str, LocalBundle] = {}

    def __post_init__(self) -> None:
        for what, name in (("node", self.node), *(("model", model) for model in self.bundles)):
            if not is_name(name):
                raise ValueError(f"{what} {name[:80]!r} must be lower-case letters, digits and '-', at most 63")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of `edge.toml`; docs/config.md explains each. `fleet_url`, `broker_url` and `cloud_urls` replace what the
    enrolment says, where the node reaches them by another way."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8100
    state_dir: str = "./state/edge"
    fleet_url: str = ""
    broker_url: str = ""
    fetch: Literal["auto", "http", "mqtt"] = "auto"
    cloud_urls: tuple[str, ...] = ()
    cloud_region: str = ""
    connect_to: dict[str, str] = {}
    capabilities: Capabilities = ()
    target: str = ""
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    provider: Choice = "auto"
    provider_fallback: bool = False
    max_body_bytes: Annotated[int, Meta(ge=1)] = 16 << 20
    max_pixels: Annotated[int, Meta(ge=1, le=200_000_000)] = 50_000_000
    default_deadline_ms: Annotated[float, Meta(gt=0)] = 10_000.0
    max_waiting: Annotated[int, Meta(ge=1)] = 256
    audit_rate: Annotated[float, Meta(ge=0, le=1)] = 0.05
    probation_s: Annotated[float, Meta(ge=0)] = 5.0
    probation_requests: Annotated[int, Meta(ge=1)] = 100
    max_slowdown: Annotated[float, Meta(ge=0, le=1e6)] = 10.0
    memory_reserve_bytes: Annotated[int, Meta(ge=0)] = 64 << 20
    memory_short: WhenShort = "wait"
    reserve_bytes: Annotated[int, Meta(ge=0)] = 64 << 20
    engines: Literal["off", "auto"] = "off"
    share_engines: bool = False
    engine_store_bytes: Annotated[int, Meta(ge=1)] = 4 << 30
    engine_build_bytes: Annotated[int, Meta(ge=1)] = 6 << 30
    admin_token_file: str = ""
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    auth: AuthConfig = AuthConfig()
    https: HttpsConfig = HttpsConfig()
    tls: TlsConfig = TlsConfig()
    spool: SpoolConfig = SpoolConfig()
    alone: AloneConfig | None = None
    snapshots: SnapshotsConfig = SnapshotsConfig()
    broker_region: str = ""
    cameras: tuple[CameraConfig, ...] = ()
    recording: RecordingConfig = RecordingConfig()
    webhooks: tuple[WebhookConfig, ...] = ()
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()

    def __post_init__(self) -> None:
        if self.target and self.target not in BOARDS:
            raise ValueError(f"target {self.target!r} is not in the board table: use one of {', '.join(BOARDS)}")
        check_names(self.cameras)
        check_recording(self.recording, self.cameras)
