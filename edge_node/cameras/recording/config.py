"""What is recorded, and how much of the disk it may take."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, le=600)]
Occasion = Literal["track", "rule", "crossing", "picture"]
"""A type of message that may ask for a clip: contracts/camera_events.py."""


class RecordingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[recording]` of a node; docs/recording.md explains each key.

    `directory` "" is `clips` below the state directory. `keep_bytes` bounds all clips of the node, `reserve_bytes` of
    the disk are left free by recording whatever the other keys say.
    """

    on: bool = False
    directory: str = ""
    pre_s: Seconds = 5.0
    post_s: Seconds = 10.0
    longest_s: Annotated[float, Meta(ge=1, le=3600)] = 120.0
    ring_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 32)] = 32 << 20
    keep_days: Annotated[float, Meta(gt=0, le=3650)] = 14.0
    keep_bytes: Annotated[int, Meta(ge=16 << 20, le=1 << 50)] = 10 << 30
    reserve_bytes: Annotated[int, Meta(ge=0, le=1 << 50)] = 1 << 30

    def __post_init__(self) -> None:
        check_spans(self.pre_s, self.post_s, self.longest_s)


class CameraRecordingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A camera's own table `recording`. What is not set is as the node's table says.

    `keep_days` and `keep_bytes` bound this camera's clips, besides the node's bounds for all of them. `events` ask for
    clips: of tracks, crossings and pictures those with one of `labels`, where any are named.
    """

    on: bool | None = None
    pre_s: Seconds | None = None
    post_s: Seconds | None = None
    longest_s: Annotated[float, Meta(ge=1, le=3600)] | None = None
    ring_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 32)] | None = None
    keep_days: Annotated[float, Meta(gt=0, le=3650)] | None = None
    keep_bytes: Annotated[int, Meta(ge=16 << 20, le=1 << 50)] | None = None
    events: tuple[Occasion, ...] = ("rule", "track")
    labels: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """Of one camera, after both tables were read. `keep_days` and `keep_bytes` None: the node's alone hold."""

    on: bool
    pre_s: float
    post_s: float
    longest_s: float
    ring_bytes: int
    keep_days: float | None = None
    keep_bytes: int | None = None


def limits_of(node: RecordingConfig, camera: CameraRecordingConfig) -> Limits:
    """Raises ValueError where the two tables together make no sense."""
    limits = Limits(
        on=node.on if camera.on is None else camera.on,
        pre_s=node.pre_s if camera.pre_s is None else camera.pre_s,
        post_s=node.post_s if camera.post_s is None else camera.post_s,
        longest_s=node.longest_s if camera.longest_s is None else camera.longest_s,
        ring_bytes=node.ring_bytes if camera.ring_bytes is None else camera.ring_bytes,
        keep_days=camera.keep_days,
        keep_bytes=camera.keep_bytes,
    )
    check_spans(limits.pre_s, limits.post_s, limits.longest_s)
    return limits


def check_spans(pre_s: float, post_s: float, longest_s: float) -> None:
    """Raises ValueError."""
    if pre_s + post_s > longest_s:
        raise ValueError(
            f"pre_s {pre_s:g} and post_s {post_s:g} together are longer than longest_s {longest_s:g}: raise longest_s"
        )
