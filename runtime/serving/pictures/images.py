"""JPEG and PNG bytes into upright pictures, guarded before anything is decoded."""

from __future__ import annotations

from typing import NamedTuple

from runtime.serving.engines.tensors import Array
from runtime.serving.pictures import jpeg, orientation, png
from runtime.serving.pictures.picture import Size, bad

JPEG, PNG = jpeg.MEDIA_TYPE, png.MEDIA_TYPE
MEDIA_TYPES = (JPEG, PNG)
MAX_PIXELS = 50_000_000
MAX_WHOLE_PIXELS = 25_000_000
"""Of a PNG and of a progressive JPEG, which lie in memory as a whole, whatever size is wanted: 150 MB then."""

_ANY = Size(0, 0)


class Look(NamedTuple):
    """What a picture is, before it is decoded; `size` is that of the upright picture."""

    size: Size
    orientation: int
    png: tuple[png.Chunks, png.Head] | None


def look(data: bytes, media_type: str, *, max_pixels: int = MAX_PIXELS) -> Look:
    """Reads the header alone. A camera's orientation mark is followed: people send photos as they see them.

    Raises FoothillError `bad_image` for what is not a picture of `media_type`, or is a larger one than `max_pixels`.
    """
    _check_magic(data, media_type)
    if media_type == JPEG:
        head = jpeg.read_head(data)
        _check_size(head.size, min(max_pixels, MAX_WHOLE_PIXELS) if head.progressive else max_pixels)
        jpeg.check_scans(head)
        return Look(_turned(head.size, head.orientation), head.orientation, None)
    png_head = png.read_head(data)
    _check_size(png_head.size, min(max_pixels, MAX_WHOLE_PIXELS))
    chunks = png.read_chunks(data)
    return Look(_turned(png_head.size, chunks.orientation), chunks.orientation, (chunks, png_head))


def decode(data: bytes, seen: Look, colour: str, *, at_least: Size = _ANY) -> Array:
    """The upright picture as uint8 [height, width] for grey, [height, width, 3] for rgb and bgr.

    A JPEG may come smaller, by eighths, but in no dimension below `at_least`.
    Raises FoothillError `bad_image` for a damaged or truncated picture.
    """
    if seen.png is None:
        stored = jpeg.decode(data, colour, _turned(at_least, seen.orientation))
    else:
        stored = png.decode(*seen.png, colour)
    return orientation.upright(stored, seen.orientation)


def _turned(size: Size, turn: int) -> Size:
    return Size(size.height, size.width) if turn in orientation.SIDEWAYS else size


def _check_size(size: Size, max_pixels: int) -> None:
    if not 0 < size.width * size.height <= max_pixels:
        raise bad(f"it has {size.width}x{size.height} pixels, and 1 to {max_pixels} are taken. Send a smaller picture")


def _check_magic(data: bytes, media_type: str) -> None:
    if data.startswith(jpeg.MAGIC if media_type == JPEG else png.MAGIC):
        return
    if not data:
        raise bad(f"the body is empty. Send the bytes of a {media_type}")
    other = PNG if data.startswith(png.MAGIC) else JPEG if data.startswith(jpeg.MAGIC) else ""
    advice = f"it looks like {other}: set Content-Type to that" if other else "send the file's bytes as they are"
    raise bad(f"it does not start like {media_type}; {advice}")
