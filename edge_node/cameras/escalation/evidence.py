"""What the cloud gets to see: a JPEG of a thing or of the whole picture, without what privacy hides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from contracts.camera_events import Box
from contracts.predictions import Box as Thing
from edge_node.cameras.privacy import Cut, PrivacyConfig, crop, hide
from edge_node.cameras.sources.shot import Shot
from runtime.serving.engines.tensors import Array


class Framing(NamedTuple):
    """How a picture is cut out and encoded: `margin` around a box, as a share of its sides."""

    margin: float
    longest_side: int
    quality: int


class Evidence(NamedTuple):
    """`left` and `top` of it in the camera's picture, and how many of that one's pixels one of its own is."""

    jpeg: bytes
    left: int
    top: int
    scale: float

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.jpeg).hexdigest()


def evidence_of(
    shot: Shot, box: Box | None, framing: Framing, privacy: PrivacyConfig, found: Sequence[Thing] | None
) -> Evidence:
    """Of what is in `box`, or of all where that is None; `found` as `hide` takes it. For a thread."""
    picture = shot.picture("bgr")
    if privacy.hides:
        picture = hide(picture, privacy, found)
    cut = Cut(picture, 0, 0) if box is None else crop(picture, box, framing.margin)
    shown, scale = _shrunk(cut.picture, framing.longest_side)
    jpeg = simplejpeg.encode_jpeg(
        np.ascontiguousarray(shown), quality=framing.quality, colorspace="BGR", colorsubsampling="420"
    )
    return Evidence(bytes(jpeg), cut.left, cut.top, scale)


def _shrunk(picture: Array, longest: int) -> tuple[Array, float]:
    height, width = picture.shape[:2]
    scale = max(1.0, max(height, width) / longest)
    if scale == 1.0:
        return picture, 1.0
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)), scale
