"""PNG files: their chunks looked at before anything is inflated, and their pixels, by OpenCV."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import cv2
import numpy as np

from runtime.serving.engines.tensors import Array
from runtime.serving.pictures import orientation
from runtime.serving.pictures.picture import Size, bad

MEDIA_TYPE = "image/png"
MAGIC = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 65_536
UNCHECKED_BYTES = 192 << 10
"""Compressed pixels that inflate to 200 MB at most, in half a second, whatever they hold."""

_HEAD = struct.Struct(">I4sIIBBBBB")
_CHUNK = struct.Struct(">I4s")
_FRAME_BYTES = 12
_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
"""All that the colours of a picture need. What else may lie in a file costs time and memory to read: compressed texts
inflate to megabytes each, an animation has canvases of its own. Transparency is not looked at."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_IN_BYTES, _OUT_BYTES = 1 << 16, 1 << 20
_FLAGS = {
    "grey": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
    "rgb": cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    "bgr": cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION,
}


class Head(NamedTuple):
    """`size` as stored, `most_bytes` what its pixels may inflate to."""

    size: Size
    most_bytes: int


class Chunks(NamedTuple):
    """A file without what it does not need for its pixels, and how it is to be turned."""

    data: bytes
    orientation: int


def read_head(data: bytes) -> Head:
    """Raises FoothillError `bad_image`."""
    if len(data) < len(MAGIC) + _HEAD.size:
        raise bad("it ends inside its PNG header. Is the file whole?")
    length, kind, width, height, depth, colour, _, _, interlaced = _HEAD.unpack_from(data, len(MAGIC))
    if kind != b"IHDR" or length != 13 or colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise bad("its PNG header is out of form. Save it again")
    row_bytes = (width * depth * _CHANNELS[colour] + 7) // 8 + 1
    # The seven passes of an interlaced picture end their rows in whole bytes, and begin each with one.
    most_bytes = row_bytes * height + (4 * (width + height) + 64 if interlaced else 0) * (2 if interlaced else 1)
    return Head(Size(width, height), most_bytes)


def read_chunks(data: bytes) -> Chunks:
    """Walks the chunks to IEND. Raises FoothillError `bad_image` for a file that ends before.

    The decoder would take long, and write to stderr, to find that out.
    """
    kept, turned, others = [MAGIC], orientation.UPRIGHT, False
    offset = len(MAGIC)
    for _ in range(MAX_CHUNKS):
        if offset + _FRAME_BYTES > len(data):
            raise bad("the PNG ends before its last chunk. Is the file whole?")
        length, kind = _CHUNK.unpack_from(data, offset)
        end = offset + _FRAME_BYTES + length
        if kind in _PIXELS:
            kept.append(data[offset:end])
        else:
            others = True
            if kind == b"eXIf":
                turned = orientation.parse(data[offset + 8 : end - 4])
        if kind == b"IEND":
            return Chunks(b"".join(kept) if others else data, turned)
        offset = end
    raise bad(f"the PNG has more than {MAX_CHUNKS} chunks. Save it again")


def decode(chunks: Chunks, head: Head, colour: str) -> Array:
    """The picture as stored: uint8 [height, width] for grey, else [height, width, 3]. Raises FoothillError `bad_image`.

    16 bits lose the lower eight, transparency is left out.
    """
    if len(chunks.data) > UNCHECKED_BYTES:
        _check_inflation(chunks.data, head.most_bytes)
    try:
        picture: Array | None = cv2.imdecode(np.frombuffer(chunks.data, np.uint8), _FLAGS[colour])
    except cv2.error as error:
        raise bad(f"the PNG does not decode ({error.err}). Save it again") from error
    if picture is None:
        raise bad("the PNG does not decode: a checksum or a chunk of it is wrong. Save it again")
    return picture


def _check_inflation(data: bytes, most_bytes: int) -> None:
    """Inflates the pixels in small steps, keeping nothing: a decoder inflates what follows them as well, all of it."""
    inflate, inflated, offset = zlib.decompressobj(), 0, len(MAGIC)
    while offset < len(data):
        length, kind = _CHUNK.unpack_from(data, offset)
        start, offset = offset + 8, offset + _FRAME_BYTES + length
        if kind != b"IDAT":
            continue
        for at in range(start, start + length, _IN_BYTES):
            inflated += _inflate(inflate, data[at : min(at + _IN_BYTES, start + length)])
            if inflated > most_bytes:
                raise bad("the PNG holds more data than it has pixels. Save it again")


def _inflate(inflate: zlib._Decompress, part: bytes) -> int:
    """How many bytes come out of `part`, none of which is kept: 64 MiB at most."""
    size = 0
    try:
        while part and not inflate.eof:
            size += len(inflate.decompress(part, _OUT_BYTES))
            part = inflate.unconsumed_tail
    except zlib.error as error:
        raise bad(f"the PNG does not decode ({error}). Is the file whole?") from error
    return size
