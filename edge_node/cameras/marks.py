"""What is drawn over a picture for people: boxes with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from runtime.serving.engines.tensors import Array

_COLOURS = ((66, 190, 101), (61, 141, 255), (212, 110, 218), (255, 160, 46), (46, 204, 204), (229, 98, 98))
"""Red first."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Mark(NamedTuple):
    """`box` is left, top, right, bottom in pixels; None: of the whole picture. `number` picks the colour."""

    text: str
    box: tuple[float, float, float, float] | None
    number: int = 0


def drawn(rgb: Array, marks: Sequence[Mark], *, widest: int, quality: int) -> bytes:
    """A JPEG of `rgb`, uint8 [height, width, 3], no wider than `widest`, with the marks on it."""
    height, width = rgb.shape[:2]
    scale = min(1.0, widest / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else rgb.copy() if marks else rgb
    rows = 0
    for mark in marks:
        if mark.box is None:
            rows += 1
        _draw(picture, mark, scale, rows)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality, colorspace="RGB"))


def _draw(picture: Array, mark: Mark, scale: float, row: int) -> None:
    """In place."""
    colour, size = _COLOURS[mark.number % len(_COLOURS)], max(0.4, picture.shape[1] / 1600)
    (wide, high), below = cv2.getTextSize(mark.text, _FONT, size, 1)
    if mark.box is None:
        left, bottom = 4, row * (high + below + 6)
    else:
        left, top, right, foot = (round(edge * scale) for edge in mark.box)
        cv2.rectangle(picture, (left, top), (right, foot), colour, 2)
        bottom = max(top, high + below + 2)
    cv2.rectangle(picture, (left, bottom - high - below - 2), (left + wide + 4, bottom), colour, cv2.FILLED)
    cv2.putText(picture, mark.text, (left + 2, bottom - below), _FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
