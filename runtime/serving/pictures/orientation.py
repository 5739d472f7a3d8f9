"""How a camera was held, from its EXIF mark, and pictures turned upright by it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2

from runtime.serving.engines.tensors import Array

UPRIGHT = 1
SIDEWAYS = frozenset((5, 6, 7, 8))
"""Orientations in which width and height change places."""

EXIF_MARK = b"Exif\0\0"
_TAG, _SHORT = 0x0112, 3
_MAX_ENTRIES = 512
_ENTRY_BYTES = 12

_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda picture: cv2.flip(picture, 1),
    3: lambda picture: cv2.rotate(picture, cv2.ROTATE_180),
    4: lambda picture: cv2.flip(picture, 0),
    5: lambda picture: cv2.transpose(picture),
    6: lambda picture: cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE),
    7: lambda picture: cv2.flip(cv2.transpose(picture), -1),
    8: lambda picture: cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def parse(exif: bytes) -> int:
    """The orientation, 1 to 8, in the first directory of an EXIF block (TIFF 6.0, section 2; EXIF 2.32, tag 0x0112).

    A mark that cannot be read turns nothing: pictures are taken with any metadata.
    """
    tiff = exif.removeprefix(EXIF_MARK)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for number in range(min(count, _MAX_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + number * _ENTRY_BYTES)
            if tag == _TAG:
                return value if kind == _SHORT and value in _TURNS else UPRIGHT
    except struct.error:
        return UPRIGHT
    return UPRIGHT


def upright(picture: Array, orientation: int) -> Array:
    """`picture` as it is to be seen; the same array where it stands upright already."""
    turn = _TURNS.get(orientation)
    return picture if turn is None else turn(picture)
