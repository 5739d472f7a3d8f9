"""JPEG files: what their header says, and their pixels, by libjpeg-turbo, no larger than needed."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import simplejpeg

from runtime.serving.engines.tensors import Array
from runtime.serving.pictures import orientation
from runtime.serving.pictures.picture import Size, bad

MEDIA_TYPE = "image/jpeg"
MAGIC = b"\xff\xd8\xff"

MAX_SCANNED_PIXELS = 600_000_000
"""Pixels times scans: each scan walks over all of the picture, whatever it changes, at about 700 million a second."""
_MAX_SCANS = 100
_MAX_SEGMENTS = 1024

_SOI_BYTES = 2
_SOS = b"\xff\xda"
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))
"""Markers that no length follows."""
_NO_FILL = re.compile(rb"[^\xff]")
"""Any number of 0xFF may stand in front of a marker."""
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_COLOURS = {"grey": "GRAY", "rgb": "RGB", "bgr": "BGR"}


class Head(NamedTuple):
    """`size` as stored. A progressive picture lies in memory as a whole while it is decoded."""

    size: Size
    scans: int
    progressive: bool
    orientation: int


def read_head(data: bytes) -> Head:
    """Raises FoothillError `bad_image`."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise bad(f"its JPEG header cannot be read ({error}). Is the file whole?") from error
    progressive, turned = _walk(data)
    return Head(Size(width, height), data.count(_SOS), progressive, turned)


def check_scans(head: Head) -> None:
    """Raises FoothillError `bad_image` for a file that is made to take long."""
    if head.scans > _MAX_SCANS:
        raise bad(f"it has more than {_MAX_SCANS} scans. Save it again as a plain JPEG")
    if head.scans * head.size.width * head.size.height > MAX_SCANNED_PIXELS:
        raise bad(f"so many pixels come in {head.scans} scans. Save it again as a plain JPEG")


def decode(data: bytes, colour: str, at_least: Size) -> Array:
    """The picture as stored, by eighths smaller where no dimension comes below `at_least`.

    uint8 [height, width] for grey, else [height, width, 3]. Raises FoothillError `bad_image`.
    """
    try:
        picture: Array = simplejpeg.decode_jpeg(
            data, _COLOURS[colour], min_height=at_least.height, min_width=at_least.width
        )
    except ValueError as error:
        raise bad(f"the JPEG does not decode ({error}). Is the file whole?") from error
    return picture[:, :, 0] if colour == "grey" else picture


def encode(picture: Array, colour: str, quality: int = 85) -> bytes:
    """A plain JPEG with halved colour, and nothing in it but the pixels.

    `picture` is uint8 [height, width] for grey, else [height, width, 3]; `quality` is 1 to 100, as libjpeg has it.
    """
    pixels = np.ascontiguousarray(picture if picture.ndim == 3 else picture[:, :, np.newaxis])
    subsampling = "Gray" if colour == "grey" else "420"
    data: bytes = simplejpeg.encode_jpeg(pixels, quality, _COLOURS[colour], subsampling)
    return data


def _walk(data: bytes) -> tuple[bool, int]:
    """Whether it is progressive, and its orientation: from the segments in front of the first scan."""
    progressive, turned, at = False, orientation.UPRIGHT, _SOI_BYTES
    for _ in range(_MAX_SEGMENTS):
        fill = data.find(b"\xff", at)
        found = _NO_FILL.search(data, fill) if fill > 0 else None
        if found is None or found.end() + 2 > len(data):
            break
        marker, at = data[found.start()], found.end()
        if marker in (_START_OF_SCAN, _END):
            break
        if marker in _ALONE:
            continue
        length = data[at] << 8 | data[at + 1]
        if marker in _PROGRESSIVE:
            progressive = True
        elif marker == _APP1 and data.startswith(orientation.EXIF_MARK, at + 2):
            turned = orientation.parse(data[at + 2 : at + length])
        at += length
    return progressive, turned
