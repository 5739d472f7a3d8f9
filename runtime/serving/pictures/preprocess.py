"""From the bytes of a picture to the model's input tensor."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from contracts.manifest import Preprocess
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures import images
from runtime.serving.pictures.images import Look
from runtime.serving.pictures.picture import Size

INLINE_PIXELS = 128 * 128
INLINE_BYTES = 64 << 10
"""Below both, a picture is decoded where it is: 10 µs for 28x28 pixels, where a change of thread costs 100."""

_LETTERBOX_GREY = 114
"""The border of a letterbox, before scaling; the value that the YOLO family is trained with."""


class Preprocessor:
    """Applies one manifest's `Preprocess`. Safe to call from several threads. `raw`: the model takes pixels."""

    def __init__(self, spec: Preprocess, *, raw: bool = False) -> None:
        self._spec = spec
        self._raw = raw
        levels = np.arange(256, dtype=np.float64) * spec.scale
        tables = [(levels - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        self.tables: npt.NDArray[np.float32] = np.array(tables, dtype=np.float32)
        """What becomes of each of the 256 levels: (channels, 256)."""

    def tensor(
        self, data: bytes, media_type: str, *, seen: Look | None = None, max_pixels: int = images.MAX_PIXELS
    ) -> Array:
        """As `normalise`; `seen` is its head, if known. Raises FoothillError `bad_image`."""
        seen = seen or images.look(data, media_type, max_pixels=max_pixels)
        picture = images.decode(data, seen, self._spec.colour, at_least=least_size(seen.size, self._spec))
        return self.normalise(self.resize(picture))

    def resize(self, picture: Array) -> Array:
        """uint8 [height, width(, 3)] of the spec's size. Shrinks by area averages and enlarges linearly."""
        spec = self._spec
        if spec.resize == "crop":
            picture = _centre(picture, spec)
        have = Size(picture.shape[1], picture.shape[0])
        inner = inside(have, spec) if spec.resize == "letterbox" else Size(spec.width, spec.height)
        if have != inner:
            shrinks = have.width >= inner.width and have.height >= inner.height
            picture = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return _framed(picture, inner, spec)

    def normalise(self, picture: Array) -> Array:
        """`(pixel * scale - mean) / std` as float32 [1, channels, height, width], through a table of the 256 levels; or
        [1, height, width, channels]; or the pixels themselves, uint8, either way."""
        if self._raw:
            return self._laid_out(picture)
        if self._spec.layout == "nhwc":
            table = np.ascontiguousarray(self.tables.T[:, np.newaxis])
            whole = cv2.LUT(np.ascontiguousarray(picture), table if picture.ndim == 3 else table[..., 0])
            return np.asarray(whole.reshape(1, *picture.shape[:2], len(self.tables)))
        planes = [picture] if picture.ndim == 2 else [cv2.extractChannel(picture, channel) for channel in range(3)]
        tensor = np.empty((1, len(planes), *picture.shape[:2]), dtype=np.float32)
        for channel, plane in enumerate(planes):
            tensor[0, channel] = cv2.LUT(np.ascontiguousarray(plane), self.tables[channel])
        return tensor

    def _laid_out(self, picture: Array) -> Array:
        whole = np.ascontiguousarray(picture).reshape(1, *picture.shape[:2], len(self.tables))
        return whole if self._spec.layout == "nhwc" else np.ascontiguousarray(whole.transpose(0, 3, 1, 2))


def glance(data: bytes, media_type: str, *, max_pixels: int = images.MAX_PIXELS) -> Look | None:
    """The head of a picture that is decoded sooner than a change of thread takes. Raises FoothillError `bad_image`.

    None for any other. A long file is not even looked at here: it may be made of thousands of chunks.
    """
    if len(data) > INLINE_BYTES:
        return None
    seen = images.look(data, media_type, max_pixels=max_pixels)
    return seen if seen.size.width * seen.size.height <= INLINE_PIXELS else None


def least_size(size: Size, spec: Preprocess) -> Size:
    """The smallest size a picture may be decoded to without making it larger again afterwards."""
    if spec.resize == "letterbox":
        wanted = inside(size, spec)
    elif spec.resize == "crop":
        ratio = max(spec.width / size.width, spec.height / size.height)
        wanted = Size(math.ceil(size.width * ratio), math.ceil(size.height * ratio))
    else:
        wanted = Size(spec.width, spec.height)
    return Size(min(wanted.width, size.width), min(wanted.height, size.height))


def shrunk(size: Size, spec: Preprocess) -> Size | None:
    """What becomes of a whole picture when it is only made smaller, before it is framed. None where it is not: where
    it is cut, or made larger, or stays as it is."""
    target = inside(size, spec) if spec.resize == "letterbox" else Size(spec.width, spec.height)
    smaller = target.width <= size.width and target.height <= size.height and target != size
    return target if smaller and spec.resize != "crop" else None


def inside(size: Size, spec: Preprocess) -> Size:
    """The largest size of the same proportions that lies inside the target."""
    ratio = min(spec.width / size.width, spec.height / size.height)
    return Size(max(1, round(size.width * ratio)), max(1, round(size.height * ratio)))


def cropped(size: Size, spec: Preprocess) -> tuple[int, int, Size]:
    """The largest part in the middle that has the target's proportions: its left edge, its top, and its size."""
    width = max(1, min(size.width, round(size.height * spec.width / spec.height)))
    height = max(1, min(size.height, round(size.width * spec.height / spec.width)))
    return (size.width - width) // 2, (size.height - height) // 2, Size(width, height)


def _centre(picture: Array, spec: Preprocess) -> Array:
    left, top, inner = cropped(Size(picture.shape[1], picture.shape[0]), spec)
    return picture[top : top + inner.height, left : left + inner.width]


def _framed(picture: Array, inner: Size, spec: Preprocess) -> Array:
    across, down = spec.width - inner.width, spec.height - inner.height
    if not (across or down):
        return picture
    left, top = across // 2, down // 2
    grey = (_LETTERBOX_GREY,) * 3
    framed: Array = cv2.copyMakeBorder(picture, top, down - top, left, across - left, cv2.BORDER_CONSTANT, value=grey)
    return framed
