"""Pictures: real ones decode as other libraries decode them, all others are refused before or while decoding."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from runtime.serving.pictures import images
from runtime.serving.pictures.images import JPEG, PNG
from runtime.serving.pictures.picture import Size

Array = npt.NDArray[Any]


def photo(width: int = 64, height: int = 48) -> Array:
    rng = np.random.default_rng(0)
    return np.asarray(cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), (9, 9), 0))


def jpeg(picture: Array, *, progressive: bool = False) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return bytes(cv2.imencode(".jpg", picture, options)[1])


def png(picture: Array) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


def read(data: bytes, media_type: str, colour: str = "grey") -> Array:
    return images.decode(data, images.look(data, media_type), colour)


JPEG_BYTES, PROGRESSIVE_BYTES, PNG_BYTES = jpeg(photo()), jpeg(photo(), progressive=True), png(photo())


@pytest.mark.parametrize("colour", ["grey", "rgb", "bgr"])
def test_png_and_jpeg_give_the_same_picture_in_the_order_asked_for(colour: str) -> None:
    from_png = read(PNG_BYTES, PNG, colour)
    expected = {
        "grey": cv2.cvtColor(photo(), cv2.COLOR_BGR2GRAY),
        "rgb": cv2.cvtColor(photo(), cv2.COLOR_BGR2RGB),
        "bgr": photo(),
    }[colour]
    np.testing.assert_allclose(from_png, expected, atol=1)
    for data in (JPEG_BYTES, PROGRESSIVE_BYTES):
        assert np.abs(read(data, JPEG, colour).astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    "picture",
    [
        photo()[:, :, 0],
        np.dstack([photo(), np.full((48, 64), 7, np.uint8)]),
        photo().astype(np.uint16) * 257,
    ],
    ids=["grey", "alpha", "16 bit"],
)
def test_every_kind_of_png_becomes_eight_bits_of_the_colours_asked_for(picture: Array) -> None:
    for colour, shape in (("grey", (48, 64)), ("rgb", (48, 64, 3))):
        got = read(png(picture), PNG, colour)
        assert got.shape == shape
        assert got.dtype == np.uint8


def test_a_jpeg_comes_smaller_but_never_below_what_is_needed() -> None:
    data = jpeg(photo(640, 480))
    seen = images.look(data, JPEG)
    assert images.decode(data, seen, "grey", at_least=Size(224, 168)).shape == (180, 240)
    assert images.decode(data, seen, "grey", at_least=Size(640, 480)).shape == (480, 640)


def png_head(width: int, height: int) -> bytes:
    head = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def jpeg_head(width: int, height: int) -> bytes:
    tiny = JPEG_BYTES
    at = tiny.index(b"\xff\xc0") + 5
    return tiny[:at] + struct.pack(">HH", height, width) + tiny[at + 4 :]


@pytest.mark.parametrize(
    ("data", "media_type", "says"),
    [
        (b"", JPEG, "the body is empty"),
        (jpeg_head(7071, 7072), JPEG, "7071x7072 pixels, and 1 to 50000000 are taken"),
        (png_head(5000, 5001), PNG, "5000x5001 pixels, and 1 to 25000000 are taken"),
        (b"", PNG, "the body is empty"),
        (b"GIF89a" + bytes(100), JPEG, "does not start like image/jpeg"),
        (PNG_BYTES, JPEG, "looks like image/png: set Content-Type"),
        (JPEG_BYTES, PNG, "looks like image/jpeg: set Content-Type"),
        (JPEG_BYTES[:3], JPEG, "header cannot be read"),
        (JPEG_BYTES[:200], JPEG, "Is the file whole"),
        (JPEG_BYTES[:-2], JPEG, "Is the file whole"),
        (PROGRESSIVE_BYTES[:-500], JPEG, "Is the file whole"),
        (PNG_BYTES[:12], PNG, "ends inside its PNG header"),
        (PNG_BYTES[:200], PNG, "ends before its last chunk"),
        (PNG_BYTES[:-1], PNG, "ends before its last chunk"),
        (PNG_BYTES[:8] + b"\x00\x00\x00\x0dJUNK" + PNG_BYTES[16:], PNG, "out of form"),
        (png_head(60_000, 60_000), PNG, "60000x60000 pixels, and 1 to 25000000 are taken. Send a smaller"),
        (png_head(0, 10), PNG, "0x10 pixels"),
        (jpeg_head(65_000, 65_000), JPEG, "65000x65000 pixels"),
        (PNG_BYTES[:8] + b"".join([PNG_BYTES[8:33]] + [bytes(4) + b"tEXt" + bytes(4)] * 65_536), PNG, "65536 chunks"),
        (JPEG_BYTES[:-2] + b"\xff\xda" * 200 + b"\xff\xd9", JPEG, "more than 100 scans"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_what_to_do(data: bytes, media_type: str, says: str) -> None:
    with pytest.raises(FoothillError, match=says) as refused:
        read(data, media_type)
    assert refused.value.code == "bad_image"


def test_a_wrong_checksum_is_refused() -> None:
    middle = len(PNG_BYTES) // 2
    with pytest.raises(FoothillError, match="the PNG does not decode"):
        read(PNG_BYTES[:middle] + bytes([PNG_BYTES[middle] ^ 255]) + PNG_BYTES[middle + 1 :], PNG)


def outcome(data: bytes, media_type: str) -> str:
    """`picture` or the code of the refusal; anything else is a defect and raises."""
    try:
        read(data, media_type)
    except FoothillError as error:
        return error.code
    return "picture"


@given(st.sampled_from([JPEG_BYTES, PROGRESSIVE_BYTES, PNG_BYTES]), st.data())
def test_a_damaged_picture_decodes_or_is_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data[: draw.draw(st.integers(1, len(data)))])
    for _ in range(draw.draw(st.integers(0, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    for media_type in images.MEDIA_TYPES:
        assert outcome(bytes(damaged), media_type) in ("picture", "bad_image")


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", PNG_BYTES[:33]]), st.binary(max_size=300))
def test_garbage_behind_a_right_beginning_is_refused(start: bytes, rest: bytes) -> None:
    for media_type in images.MEDIA_TYPES:
        assert outcome(start + rest, media_type) in ("picture", "bad_image")
