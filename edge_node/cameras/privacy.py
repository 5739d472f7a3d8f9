"""What must not be seen off the box, made unrecognisable in a picture before it leaves.

How strong a blur has to be. A Gaussian blur is a known sum of pixels, which can be solved for them, and networks that
have learned mosaics tell faces and digits apart in them (McPherson, Shokri, Shmatikov: Defeating Image Obfuscation with
Deep Learning, 2016, arXiv:1609.00408). So no more is left of a connected place than the mean colours of 4 by 4 cells in
16 levels a channel, at most 192 bits however large it is, and what is shown is computed from these alone: fewer cells
than a plate has strokes or a face has features. Nothing can be computed back out of one picture that is not in them.
What is in them is about the colour of hair and clothes, by which one of a few known people may still be told from the
others, and many pictures of one place tell more than one does: where that is too much, black leaves nothing at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import cv2
import msgspec
import numpy as np
from msgspec import Meta

from contracts.predictions import Box
from runtime.serving.engines.tensors import Array

Polygon = tuple[tuple[float, float], ...]
"""Corners (x, y) as shares of width and height, 0..1; at least three. Where its sides cross, all that they enclose."""

PixelBox = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

MOST_CELLS = 4
"""Across and down, of each connected place."""
LEAST_CELL_PIXELS = 16
LEVELS = 16

_GREY = 128.0
_STEP = 256 // LEVELS
_SHIFT = 8
"""Bits behind the point of OpenCV's corners."""


class PrivacyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A camera's table `privacy`: places, and labels that a detector finds.

    `margin` is the share of a found box's width and height that is hidden around it. `clips`: whether clips, in which
    nothing can be hidden, may be played over HTTP all the same.
    """

    blur: tuple[Polygon, ...] = ()
    black: tuple[Polygon, ...] = ()
    blur_labels: tuple[str, ...] = ()
    black_labels: tuple[str, ...] = ()
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.15
    clips: bool = False

    @property
    def hides(self) -> bool:
        """Whether it hides anything at all."""
        return bool(self.blur or self.black) or self.names_labels

    @property
    def names_labels(self) -> bool:
        """Whether it hides what a detector finds."""
        return bool(self.blur_labels or self.black_labels)

    @property
    def fingerprint(self) -> str:
        """The same for rules that hide the same, in this life of the node and the next."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[:16]

    def __post_init__(self) -> None:
        for polygon in (*self.blur, *self.black):
            if len(polygon) < 3 or not all(0 <= share <= 1 for corner in polygon for share in corner):
                raise ValueError(
                    f"{polygon} is no place in a picture: give three or more corners, each [x, y] from 0 to 1"
                )


def hide(picture: Array, rules: PrivacyConfig, found: Sequence[Box] | None = ()) -> Array:
    """A copy of a picture, uint8 [height, width, 3], without what the rules hide; all other pixels are the same.

    `found` are a detector's boxes in this picture; None: nobody has looked for what the rules name, so that it may be
    anywhere. Doing it again changes nothing.
    """
    size = picture.shape[:2]
    black = _mask(size, rules.black, _boxes(found, rules.black_labels, size), rules.margin)
    blurred = _mask(size, rules.blur, _boxes(found, rules.blur_labels, size), rules.margin) & ~black
    hidden: Array = picture.copy()
    if blurred.any():
        _blur(hidden, blurred)
    hidden[black.astype(bool)] = 0
    return hidden


class Cut(NamedTuple):
    """A view of a picture, from `left` and `top` of it on."""

    picture: Array
    left: int
    top: int


def crop(picture: Array, box: PixelBox, margin: float = 0.0) -> Cut:
    """What lies within a box and `margin` of its width and height around it, of at least one pixel."""
    height, width = picture.shape[:2]
    left, top, right, bottom = _outwards(box, margin, (height, width))
    left, top = min(left, width - 1), min(top, height - 1)
    return Cut(picture[top : max(bottom, top + 1), left : max(right, left + 1)], left, top)


def _boxes(found: Sequence[Box] | None, labels: tuple[str, ...], size: tuple[int, int]) -> list[PixelBox]:
    if found is None:
        return [(0.0, 0.0, float(size[1]), float(size[0]))] if labels else []
    return [each.box for each in found if each.label in labels]


def _mask(size: tuple[int, int], polygons: Sequence[Polygon], boxes: Sequence[PixelBox], margin: float) -> Array:
    """uint8 [height, width]: 255 where something is to be hidden."""
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        _fill(mask, polygon)
    for box in boxes:
        left, top, right, bottom = _outwards(box, margin, size)
        mask[top:bottom, left:right] = 255
    return mask


def _fill(mask: Array, polygon: Polygon) -> None:
    """Every pixel that a polygon touches, and all that its sides enclose when they cross: not too little, ever."""
    height, width = mask.shape
    corners = (np.array(polygon) * (width, height) - 0.5) * (1 << _SHIFT)
    shape = np.zeros_like(mask)
    cv2.fillPoly(shape, [np.rint(corners).astype(np.int32)], 255, shift=_SHIFT)
    outlines, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, outlines, -1, 255, cv2.FILLED)


def _outwards(box: PixelBox, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels within the picture. A box that is none is all of the picture."""
    height, width = size
    if not all(map(math.isfinite, box)):
        return 0, 0, width, height
    (left, right), (top, bottom) = sorted(box[::2]), sorted(box[1::2])
    across, down = margin * (right - left), margin * (bottom - top)
    return (
        _within(math.floor(left - across), width),
        _within(math.floor(top - down), height),
        _within(math.ceil(right + across), width),
        _within(math.ceil(bottom + down), height),
    )


def _within(at: int, most: int) -> int:
    return min(max(at, 0), most)


def _blur(picture: Array, mask: Array) -> None:
    """Each connected place of the mask by itself, in place."""
    count, labels, places, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    for number in range(1, count):
        left, top, width, height, _ = places[number]
        there = np.s_[top : top + height, left : left + width]
        inside = labels[there] == number
        picture[there][inside] = _cells(picture[there], inside)[inside]


def _cells(picture: Array, inside: Array) -> Array:
    """uint8 [height, width, 3]: the mean colours of a few cells, taken in the middle of each, fading into each other.

    [height, width] bool `inside` says which pixels count. The middles are even, so that blurring again changes nothing.
    """
    down, across = (_fading(length) for length in inside.shape)
    middle_down, middle_across = (down == 1.0).astype(np.float32), (across == 1.0).astype(np.float32)
    counted = inside.astype(np.float32)
    pixels = middle_down.T @ counted @ middle_across
    colours = [middle_down.T @ (picture[:, :, each] * counted) @ middle_across for each in range(3)]
    means = np.where(pixels > 0, np.stack(colours) / np.maximum(pixels, 1), _GREY)
    levels = np.floor(means / _STEP) * _STEP + _STEP / 2
    shown = np.stack([down @ each @ across.T for each in levels.astype(np.float32)], axis=2)
    whole: Array = np.rint(shown).astype(np.uint8)
    return whole


def _fading(length: int) -> Array:
    """float32 [length, cells]: how much of each cell's colour each pixel shows. 1 in the middle half of a cell."""
    cells = min(MOST_CELLS, max(1, length // LEAST_CELL_PIXELS))
    at = (np.arange(length) + 0.5) * cells / length - 0.5
    away = np.abs(at[:, np.newaxis] - np.arange(cells))
    away[at < 0, 0] = 0.0
    away[at > cells - 1, -1] = 0.0
    shares: Array = np.clip(1.5 - 2.0 * away, 0.0, 1.0).astype(np.float32)
    return shares
