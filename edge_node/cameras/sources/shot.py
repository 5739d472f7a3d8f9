"""One picture of a camera, decoded, and looked at only as far as somebody wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, cast

import cv2
import numpy as np

from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size

if TYPE_CHECKING:
    from av import VideoFrame

Colour = Literal["grey", "rgb", "bgr"]

_PLANAR = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"))
"""Formats whose first plane is the luma, a byte a pixel."""
_FORMATS = {"grey": "gray", "rgb": "rgb24", "bgr": "bgr24"}
_FROM_BGR = {"grey": cv2.COLOR_BGR2GRAY, "rgb": cv2.COLOR_BGR2RGB}


class Shot(Protocol):
    """`at_s` is when it was taken, in unix time; `number` counts the pictures of one source."""

    at_s: float
    number: int
    size: Size

    def luma(self) -> Array:
        """uint8 [height, width]; may be a view."""
        ...

    def picture(self, colour: Colour) -> Array:
        """uint8 [height, width, 3], or [height, width] for grey; may be shared: not to be written to."""
        ...


class Decoded:
    """A picture as a decoder gives it."""

    def __init__(self, frame: VideoFrame, at_s: float, number: int) -> None:
        self._frame = frame
        self.at_s = at_s
        self.number = number
        self.size = Size(frame.width, frame.height)

    def luma(self) -> Array:
        if self._frame.format.name not in _PLANAR:
            return self.picture("grey")
        plane, (width, height) = self._frame.planes[0], self.size
        rows = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * height).reshape(height, plane.line_size)
        return cast(Array, rows[:, :width])

    def picture(self, colour: Colour) -> Array:
        return cast(Array, self._frame.to_ndarray(format=_FORMATS[colour]))


class Still:
    """A picture that came by itself: uint8 [height, width, 3], blue first."""

    def __init__(self, bgr: Array, at_s: float, number: int) -> None:
        self._bgr = bgr
        self.at_s = at_s
        self.number = number
        self.size = Size(bgr.shape[1], bgr.shape[0])

    def luma(self) -> Array:
        return self.picture("grey")

    def picture(self, colour: Colour) -> Array:
        return self._bgr if colour == "bgr" else cast(Array, cv2.cvtColor(self._bgr, _FROM_BGR[colour]))
