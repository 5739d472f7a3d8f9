"""The keys of a camera in `edge.toml`, and in what the API takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.topics import NODE_NAME
from edge_node.cameras.escalation.config import EscalationConfig
from edge_node.cameras.gate import MotionConfig
from edge_node.cameras.observers.vectors import EmbeddingConfig
from edge_node.cameras.privacy import PrivacyConfig
from edge_node.cameras.reader import Pace
from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig, limits_of
from edge_node.cameras.scene.config import LineConfig, MaskConfig, RuleConfig, SceneConfig, ZoneConfig
from edge_node.cameras.snapshots.config import CameraSnapshotsConfig
from edge_node.cameras.sources import pattern
from edge_node.cameras.sources.address import Address, Kind, Login, parse
from edge_node.cameras.sources.wishes import Demuxer, Transport, Wishes
from edge_node.cameras.sources.wishes import Pace as FilePace
from edge_node.cameras.tracking.config import TrackerConfig

_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED = frozenset(("status", "events"))
MAX_CAMERAS = 256


class CameraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[cameras]]`; docs/cameras.md explains each key. `model` "" decodes and records, and asks no model."""

    name: str
    url: str
    kind: Kind | None = None
    user: str = ""
    password_env: str = ""
    password_file: str = ""
    transport: Transport = "tcp"
    demuxer: Demuxer = "auto"
    decoder: str = "auto"
    decoder_threads: Annotated[int, Meta(ge=1, le=64)] = 1
    keyframes_only: bool = False
    pace: FilePace = "realtime"
    loop: bool = False
    interval_s: Annotated[float, Meta(ge=0.01, le=86_400)] = 1.0
    open_timeout_s: Annotated[float, Meta(gt=0, le=300)] = 10.0
    stall_s: Annotated[float, Meta(gt=0, le=300)] = 5.0
    reconnect_s: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0
    frozen_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    dark_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 10.0
    model: str = ""
    priority: Literal["high", "normal", "low"] = "normal"
    stride: Annotated[int, Meta(ge=1, le=10_000)] = 1
    max_fps: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    deadline_ms: Annotated[float, Meta(gt=0, le=600_000)] = 2000.0
    update_every_s: Annotated[float, Meta(ge=0, le=3600)] = 1.0
    residency: tuple[str, ...] = ()
    escalation: EscalationConfig = EscalationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    snapshots: CameraSnapshotsConfig = CameraSnapshotsConfig()
    motion: MotionConfig = MotionConfig()
    tracker: TrackerConfig = TrackerConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    zones: tuple[ZoneConfig, ...] = ()
    masks: tuple[MaskConfig, ...] = ()
    lines: tuple[LineConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    recording: CameraRecordingConfig = CameraRecordingConfig()

    def __post_init__(self) -> None:
        if not NODE_NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(
                f"camera {self.name[:80]!r}: a name is lower-case letters, digits and '-', at most 63, and not "
                f"{' or '.join(sorted(_RESERVED))}"
            )
        if self.model and not NODE_NAME.fullmatch(self.model):
            raise ValueError(f"camera {self.name}: {self.model[:80]!r} is not the name of a model")
        if self.password_env and not _ENVIRONMENT.fullmatch(self.password_env):
            raise ValueError(f"camera {self.name}: password_env names a variable of the environment, not the password")
        if self.password_env and self.password_file:
            raise ValueError(f"camera {self.name}: password_env and password_file are one too many")
        self._check_address()
        unknown = [region for region in self.residency if not NODE_NAME.fullmatch(region)]
        if unknown:
            raise ValueError(f"camera {self.name}: residency: {unknown[0][:80]!r} is not the name of a region")
        try:
            _ = self.scene
        except ValueError as error:
            raise ValueError(f"camera {self.name}: {error}") from None

    @property
    def hiding(self) -> PrivacyConfig:
        """What nobody off the box sees: the table `privacy`, and the masks that hide pixels, in black."""
        masked = tuple(mask.polygon for mask in self.masks if "pixels" in mask.hides)
        return msgspec.structs.replace(self.privacy, black=(*self.privacy.black, *masked))

    @property
    def scene(self) -> SceneConfig:
        return SceneConfig(self.zones, self.masks, self.lines, self.rules)

    def address(self, base: Path = Path()) -> Address:
        """A path is one relative to `base`. Raises ValueError."""
        return parse(self.url, kind=self.kind, base=base)

    @property
    def login(self) -> Login:
        return Login(self.user, self.password_env, self.password_file)

    @property
    def wishes(self) -> Wishes:
        return Wishes(
            transport=self.transport,
            demuxer=self.demuxer,
            decoder=self.decoder,
            decoder_threads=self.decoder_threads,
            keyframes_only=self.keyframes_only,
            pace=self.pace,
            loop=self.loop,
            interval_s=self.interval_s,
            open_timeout_s=self.open_timeout_s,
            stall_s=self.stall_s,
        )

    @property
    def rate(self) -> Pace:
        return Pace(self.stride, self.max_fps)

    def _check_address(self) -> None:
        try:
            address = self.address()
            if address.kind == "pattern":
                pattern.asked(self.url)
        except ValueError as error:
            raise ValueError(f"camera {self.name}: url: {error}") from None


def check_recording(recording: RecordingConfig, cameras: tuple[CameraConfig, ...]) -> None:
    """Raises ValueError where the node's table and that of a camera make no sense together."""
    for camera in cameras:
        _check_recording(recording, camera)


def check_names(cameras: tuple[CameraConfig, ...]) -> None:
    """Raises ValueError where two have one name, or where there are too many."""
    names = [camera.name for camera in cameras]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"cameras: {', '.join(double)} is there twice: give each a name of its own")
    if len(names) > MAX_CAMERAS:
        raise ValueError(f"cameras: {len(names)} are too many for one node; {MAX_CAMERAS} at most")


def _check_recording(recording: RecordingConfig, camera: CameraConfig) -> None:
    try:
        limits_of(recording, camera.recording)
    except ValueError as error:
        raise ValueError(f"camera {camera.name}: recording: {error}") from None
