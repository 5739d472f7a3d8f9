"""Which events keep the picture that they began with, and how many of them the node keeps."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Pictured = Literal["track", "rule", "picture"]


class SnapshotsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `snapshots` of a node: what all of them together may take of its disk."""

    keep_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] = 256 << 20
    keep_days: Annotated[float, Meta(gt=0, le=3650)] = 14.0


class CameraSnapshotsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A camera's own table `snapshots`. `crop` shows of a track what is in its box and `margin` of its sides around it,
    `mqtt` publishes each picture too."""

    events: tuple[Pictured, ...] = ()
    crop: bool = False
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.2
    longest_side: Annotated[int, Meta(ge=32, le=16_384)] = 480
    quality: Annotated[int, Meta(ge=1, le=100)] = 65
    mqtt: bool = False
