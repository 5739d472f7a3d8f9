"""JPEG and PNG bytes into pictures, guarded before anything is decoded."""

from __future__ import annotations

import struct
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from contracts.errors import FoothillError
from runtime.serving.tensors import Array

JPEG = "image/jpeg"
PNG = "image/png"
MEDIA_TYPES = (JPEG, PNG)
MAX_PIXELS = 50_000_000

_JPEG_MAGIC = b"\xff\xd8\xff"
_JPEG_SCAN = b"\xff\xda"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = struct.Struct(">I4sII")
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CHUNK_FRAME = 12
_MAX_PNG_CHUNKS = 65_536
_MAX_JPEG_SCANS = 100
_JPEG_COLOURS = {"grey": "GRAY", "rgb": "RGB", "bgr": "BGR"}
# A camera's orientation mark is left alone in both formats: models see the picture as its rows are stored.
_PNG_FLAGS = {
    "grey": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
    "rgb": cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    "bgr": cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION,
}


class Size(NamedTuple):
    width: int
    height: int


_ANY = Size(0, 0)


def read_size(data: bytes, media_type: str, *, max_pixels: int = MAX_PIXELS) -> Size:
    """The picture's size in pixels from its header alone.

    Raises FoothillError `bad_image` for what is not a picture of `media_type`, or is a larger one than `max_pixels`.
    """
    size = _jpeg_size(data) if media_type == JPEG else _png_size(data)
    if not 0 < size.width * size.height <= max_pixels:
        raise _bad(f"it has {size.width}x{size.height} pixels, and 1 to {max_pixels} are taken. Send a smaller picture")
    return size


def decode(data: bytes, media_type: str, colour: str, *, at_least: Size = _ANY) -> Array:
    """The picture as uint8 [height, width] for grey, [height, width, 3] for rgb and bgr. Call `read_size` first.

    A JPEG may come smaller, by eighths, but in no dimension below `at_least`.
    Raises FoothillError `bad_image` for a damaged or truncated picture.
    """
    if media_type == JPEG:
        return _decode_jpeg(data, colour, at_least)
    return _decode_png(data, colour)


def _jpeg_size(data: bytes) -> Size:
    _check_magic(data, JPEG, _JPEG_MAGIC)
    if data.count(_JPEG_SCAN) > _MAX_JPEG_SCANS:
        raise _bad(f"it has more than {_MAX_JPEG_SCANS} scans. Save it again as a plain JPEG")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _bad(f"its JPEG header cannot be read ({error}). Is the file whole?") from error
    return Size(width, height)


def _png_size(data: bytes) -> Size:
    _check_magic(data, PNG, _PNG_MAGIC)
    start = len(_PNG_MAGIC)
    if len(data) < start + _PNG_HEAD.size:
        raise _bad("it ends inside its PNG header. Is the file whole?")
    length, kind, width, height = _PNG_HEAD.unpack_from(data, start)
    if kind != b"IHDR" or length != 13:
        raise _bad("its PNG header is out of form. Save it again")
    return Size(width, height)


def _check_magic(data: bytes, media_type: str, magic: bytes) -> None:
    if data.startswith(magic):
        return
    if not data:
        raise _bad(f"the body is empty. Send the bytes of a {media_type}")
    other = PNG if data.startswith(_PNG_MAGIC) else JPEG if data.startswith(_JPEG_MAGIC) else ""
    advice = f"it looks like {other}: set Content-Type to that" if other else "send the file's bytes as they are"
    raise _bad(f"it does not start like {media_type}; {advice}")


def _decode_jpeg(data: bytes, colour: str, at_least: Size) -> Array:
    try:
        picture: Array = simplejpeg.decode_jpeg(
            data, _JPEG_COLOURS[colour], min_height=at_least.height, min_width=at_least.width
        )
    except ValueError as error:
        raise _bad(f"the JPEG does not decode ({error}). Is the file whole?") from error
    return picture[:, :, 0] if colour == "grey" else picture


def _decode_png(data: bytes, colour: str) -> Array:
    _check_png_whole(data)
    try:
        picture: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), _PNG_FLAGS[colour])
    except cv2.error as error:
        raise _bad(f"the PNG does not decode ({error.err}). Save it again") from error
    if picture is None:
        raise _bad("the PNG does not decode: a checksum or a chunk of it is wrong. Save it again")
    return picture


def _check_png_whole(data: bytes) -> None:
    """Walks the chunks to IEND; the decoder would take long, and write to stderr, to find a file truncated."""
    offset = len(_PNG_MAGIC)
    for _ in range(_MAX_PNG_CHUNKS):
        if offset + _PNG_CHUNK_FRAME > len(data):
            raise _bad("the PNG ends before its last chunk. Is the file whole?")
        length, kind = _PNG_CHUNK.unpack_from(data, offset)
        offset += _PNG_CHUNK_FRAME + length
        if kind == b"IEND":
            return
    raise _bad(f"the PNG has more than {_MAX_PNG_CHUNKS} chunks. Save it again")


def _bad(what: str) -> FoothillError:
    return FoothillError("bad_image", f"The picture is refused: {what}.".replace("?.", "?"))
