"""One picture of a camera, decoded, and looked at only as far as somebody wants."""

from __future__ import annotations

import threading
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

    def picture(self, colour: Colour, size: Size | None = None) -> Array:
        """uint8 [height, width, 3], or [height, width] for grey; may be shared: not to be written to. Of another `size`
        than its own, which is smaller, its pixels are averages of areas."""
        ...


class Colouring:
    """Makes arrays of one source's pictures, of each in one thread at a time: two at once crash FFmpeg. What it needs
    for that it keeps, and starts no threads of its own: left to a frame, both are made anew for each picture, and take
    twice as long as the work."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._lock = threading.Lock()
        self._whole, self._shrunk = VideoReformatter(), VideoReformatter()

    def array(self, frame: VideoFrame, colour: Colour, size: Size | None) -> Array:
        """uint8 [height, width, 3], or [height, width] for grey. Made small before it gets its colours: a fifth of the
        time that it takes afterwards."""
        width, height = size if size is not None else (frame.width, frame.height)
        convert = (self._whole if size is None else self._shrunk).reformat
        with self._lock:
            made = convert(frame, width, height, _FORMATS[colour], interpolation="AREA", threads=1)
        return cast(Array, made.to_ndarray())


class Decoded:
    """A picture as a decoder gives it."""

    def __init__(self, frame: VideoFrame, at_s: float, number: int, colouring: Colouring) -> None:
        self._frame = frame
        self._colouring = colouring
        self.at_s = at_s
        self.number = number
        self.size = Size(frame.width, frame.height)

    def luma(self) -> Array:
        if self._frame.format.name not in _PLANAR:
            return self.picture("grey")
        plane, (width, height) = self._frame.planes[0], self.size
        rows = np.frombuffer(memoryview(plane), np.uint8, plane.line_size * height).reshape(height, plane.line_size)
        return cast(Array, rows[:, :width])

    def picture(self, colour: Colour, size: Size | None = None) -> Array:
        return self._colouring.array(self._frame, colour, size)


class Still:
    """A picture that came by itself: uint8 [height, width, 3], blue first."""

    def __init__(self, bgr: Array, at_s: float, number: int) -> None:
        self._bgr = bgr
        self.at_s = at_s
        self.number = number
        self.size = Size(bgr.shape[1], bgr.shape[0])

    def luma(self) -> Array:
        return self.picture("grey")

    def picture(self, colour: Colour, size: Size | None = None) -> Array:
        bgr = self._bgr if size is None else cv2.resize(self._bgr, size, interpolation=cv2.INTER_AREA)
        return bgr if colour == "bgr" else cast(Array, cv2.cvtColor(bgr, _FROM_BGR[colour]))
