"""What a stream says of itself in front of its keyframes: H.264 and H.265 parameter sets, the size of a JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import simplejpeg

Codec = Literal["h264", "hevc", "mjpeg", "mpeg4"]

_START = b"\0\0\1"
_H264_SETS, _H264_PICTURES = frozenset((7, 8)), range(1, 6)
_HEVC_SETS, _HEVC_PICTURES = frozenset((32, 33, 34)), range(0, 32)


def parameter_sets(codec: Codec, keyframe: bytes) -> bytes:
    """As they stand in an Annex B packet in front of its first picture, each behind a start code of four bytes.

    For a JPEG some bytes that differ where its size does. Empty where there are none.
    """
    if codec == "h264":
        found = (unit for kind, unit in _units(keyframe, 0x1F, 0, _H264_PICTURES) if kind in _H264_SETS)
    elif codec == "hevc":
        found = (unit for kind, unit in _units(keyframe, 0x7E, 1, _HEVC_PICTURES) if kind in _HEVC_SETS)
    elif codec == "mjpeg":
        return _jpeg_size(keyframe)
    else:
        return b""
    return b"".join(b"\0" + _START + unit for unit in found)


def _units(data: bytes, mask: int, shift: int, pictures: range) -> Iterator[tuple[int, bytes]]:
    """The units in front of the first picture, with their kinds."""
    at = data.find(_START)
    while 0 <= at < len(data) - len(_START):
        begin = at + len(_START)
        kind = (data[begin] & mask) >> shift
        if kind in pictures:
            return
        at = data.find(_START, begin)
        yield kind, (data[begin:at] if at >= 0 else data[begin:]).rstrip(b"\0")


def _jpeg_size(data: bytes) -> bytes:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return b""
    return f"{width}x{height}".encode()
