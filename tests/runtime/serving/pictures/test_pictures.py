"""Pictures of all kinds, held to Pillow as an independent reference; and files made to take long or much."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from contracts.errors import FoothillError
from contracts.manifest import Preprocess
from runtime.serving.pictures import images, orientation, png
from runtime.serving.pictures.images import JPEG, PNG
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.preprocess import INLINE_BYTES, Preprocessor, glance

Array = npt.NDArray[Any]

MAGIC = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT = 60, 44
RGB = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8), (9, 9), 0)
PHOTO = Image.fromarray(RGB)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def marked(turn: int, kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = turn
    return saved(PHOTO, kind, exif=exif, **options)


def read(data: bytes, media_type: str, colour: str = "rgb") -> Array:
    return images.decode(data, images.look(data, media_type), colour)


def by_pillow(data: bytes, mode: str = "RGB") -> Array:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode))


def adobe(data: bytes, transform: int) -> bytes:
    """The same bytes under another colour transform in the Adobe mark: 2 makes YCCK of CMYK."""
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


CMYK = saved(PHOTO.convert("CMYK"), "JPEG", quality=95)

JPEGS = {
    "baseline": saved(PHOTO, "JPEG", quality=90),
    "progressive": saved(PHOTO, "JPEG", progressive=True),
    "every sample": saved(PHOTO, "JPEG", subsampling=0),
    "restarts": saved(PHOTO, "JPEG", restart_marker_blocks=2),
    "grey": saved(PHOTO.convert("L"), "JPEG"),
    "cmyk of adobe": CMYK,
    "ycck of adobe": adobe(CMYK, 2),
    "profile and comment": saved(PHOTO, "JPEG", icc_profile=bytes(70_000), comment=b"\xff\xda" * 9),
    "filled": saved(PHOTO, "JPEG").replace(b"\xff\xdb", b"\xff" * 1000 + b"\xdb", 1),
    "trailing bytes": saved(PHOTO, "JPEG") + b"junk" * 100,
    "a second picture behind it": saved(PHOTO, "JPEG") + saved(PHOTO.rotate(90), "JPEG"),
    "mpo": saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(90)]),
}
PNGS = {
    "rgb": saved(PHOTO, "PNG"),
    "alpha": saved(PHOTO.convert("RGBA"), "PNG"),
    "grey": saved(PHOTO.convert("L"), "PNG"),
    "grey and alpha": saved(PHOTO.convert("LA"), "PNG"),
    "palette": saved(PHOTO.convert("P"), "PNG"),
    "palette of 4 bits": saved(PHOTO.quantize(16), "PNG", bits=4),
    "one bit": saved(PHOTO.convert("1"), "PNG"),
    "transparent colour": saved(PHOTO, "PNG", transparency=tuple(int(level) for level in RGB[0, 0])),
    "transparent grey": saved(PHOTO.convert("L"), "PNG", transparency=3),
    "transparent palette": saved(PHOTO.convert("P"), "PNG", transparency=3),
    "profile": saved(PHOTO, "PNG", icc_profile=bytes(3000)),
    "animation": saved(PHOTO, "PNG", save_all=True, append_images=[PHOTO.rotate(90)]),
    "trailing bytes": saved(PHOTO, "PNG") + b"junk" * 100,
}  # fmt: skip


@pytest.mark.parametrize(("name", "media_type"), [*((n, JPEG) for n in JPEGS), *((n, PNG) for n in PNGS)])
def test_every_kind_of_picture_is_what_pillow_makes_of_it(name: str, media_type: str) -> None:
    data = (JPEGS if media_type == JPEG else PNGS)[name]
    expected = by_pillow(data).astype(int)
    assert np.abs(read(data, media_type).astype(int) - expected).max() <= 1
    assert np.abs(read(data, media_type, "bgr").astype(int) - expected[:, :, ::-1]).max() <= 1
    levels = 2 if "of adobe" in name else 1
    assert np.abs(read(data, media_type, "grey").astype(int) - by_pillow(data, "L")).max() <= levels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_of_16_bits_the_upper_eight_are_kept(channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    got = read(bytes(cv2.imencode(".png", deep)[1]), PNG, "bgr")
    np.testing.assert_array_equal(got, np.broadcast_to(deep[:, :, :3] >> 8, (HEIGHT, WIDTH, 3)))


def interlaced(pixels: Array) -> bytes:
    """Adam7, which Pillow reads but does not write."""
    height, width = pixels.shape[:2]
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right]]
    data = b"".join(b"\0" + row.tobytes() for row in rows if row.size)
    return MAGIC + head(width, height, interlace=1) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def head(width: int, height: int, *, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (60, 44), (301, 299)])
def test_an_interlaced_png_is_read_and_counts_its_own_bytes(width: int, height: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = interlaced(pixels)
    assert (len(data) > png.UNCHECKED_BYTES) == (width > 300)
    np.testing.assert_array_equal(read(data, PNG), pixels)
    np.testing.assert_array_equal(by_pillow(data), pixels)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_upright_as_its_camera_says(turn: int) -> None:
    for data, media_type in (
        (marked(turn, "JPEG", quality=95), JPEG),
        (marked(turn, "JPEG", progressive=True), JPEG),
        (marked(turn, "PNG"), PNG),
    ):
        expected = by_pillow(data)
        seen = images.look(data, media_type)
        assert seen.size == Size(expected.shape[1], expected.shape[0])
        assert np.abs(read(data, media_type).astype(int) - expected).max() <= 1
        assert read(data, media_type, "grey").shape == expected.shape[:2]


def test_a_turned_jpeg_comes_smaller_but_never_below_what_is_needed_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = saved(PHOTO.resize((640, 480)), "JPEG", exif=exif)
    seen = images.look(data, JPEG)
    assert seen.size == Size(480, 640)
    assert images.decode(data, seen, "grey", at_least=Size(168, 224)).shape == (240, 180)
    assert images.decode(data, seen, "grey", at_least=Size(480, 224)).shape == (640, 480)


def test_proportions_are_kept_of_the_upright_picture() -> None:
    spec = Preprocess(64, 64, "rgb", 1.0, (0.0,) * 3, (1.0,) * 3, "letterbox")
    tensor = Preprocessor(spec).tensor(marked(6, "JPEG"), JPEG)
    assert (tensor[0, :, 30, :4] == 114).all()
    assert (tensor[0, :, :4, 30] != 114).any()


EXIFS = {
    "little endian": (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 6),
    "big endian": (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0", 8),
    "out of range": (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 1),
    "of another type": (b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0", 1),
    "a directory outside": (b"II*\0\xff\xff\xff\xff\x01\0", 1),
    "fewer entries than it says": (b"II*\0\x08\0\0\0\xff\xff", 1),
    "no tiff": (b"junk", 1),
    "nothing": (b"", 1),
}


@pytest.mark.parametrize(("exif", "turn"), EXIFS.values(), ids=EXIFS)
def test_an_orientation_is_read_and_a_mark_that_cannot_be_read_turns_nothing(exif: bytes, turn: int) -> None:
    assert orientation.parse(exif) == orientation.parse(orientation.EXIF_MARK + exif) == turn


@given(st.binary(max_size=200))
def test_no_exif_block_is_too_odd(exif: bytes) -> None:
    assert 1 <= orientation.parse(b"II*\0" + exif) <= 8


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(1 << 20, count - at))) for at in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


PIXELS = chunk(b"IDAT", zlib.compress(bytes(10 * 31)))
END = chunk(b"IEND", b"")


def test_a_png_that_inflates_to_more_than_its_pixels_is_refused_at_the_first_byte_too_many() -> None:
    bomb = MAGIC + head(10, 10) + chunk(b"IDAT", zeros(1 << 28)) + END
    assert len(bomb) > png.UNCHECKED_BYTES
    with pytest.raises(FoothillError, match="more data than it has pixels"):
        read(bomb, PNG)


def test_a_large_png_with_broken_data_is_refused() -> None:
    noise = np.random.default_rng(3).bytes(400_000)
    with pytest.raises(FoothillError, match="the PNG does not decode"):
        read(MAGIC + head(400, 400) + chunk(b"IDAT", noise) + END, PNG)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt", b"tEXt", b"fdAT", b"abCd"])
def test_what_is_no_pixel_of_a_png_does_not_reach_the_decoder(kind: bytes) -> None:
    data = MAGIC + head(10, 10) + chunk(kind, b"name\0\0" + zeros(1 << 20)) * 20 + PIXELS + END
    (chunks, _) = images.look(data, PNG).png or (None, None)
    assert chunks is not None
    assert chunks.data == MAGIC + head(10, 10) + PIXELS + END
    assert read(data, PNG).shape == (10, 10, 3)


def many_scans(side: int, scans: int) -> bytes:
    """A progressive picture of one colour whose last scan comes again and again."""
    data = saved(Image.new("RGB", (side, side), (90, 20, 200)), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda")) : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def test_many_scans_over_many_pixels_are_refused_before_one_is_decoded() -> None:
    with pytest.raises(FoothillError, match="so many pixels come in 90 scans"):
        images.look(many_scans(2600, 90), JPEG)


def test_a_progressive_picture_lies_in_memory_whole_and_may_have_fewer_pixels() -> None:
    data = JPEGS["progressive"]
    at = data.index(b"\xff\xc2") + 5
    large = data[:at] + struct.pack(">HH", 5001, 5000) + data[at + 4 :]
    with pytest.raises(FoothillError, match="5000x5001 pixels, and 1 to 25000000 are taken"):
        images.look(large, JPEG)


def test_a_long_file_is_not_looked_at_on_the_event_loop_and_keeps_to_the_limits() -> None:
    long = MAGIC + head(20, 20) + chunk(b"tEXt", bytes(INLINE_BYTES)) + chunk(b"IDAT", zlib.compress(bytes(1220))) + END
    assert glance(long, PNG) is None
    assert glance(bytes(INLINE_BYTES + 1), PNG) is None
    preprocessor = Preprocessor(Preprocess(8, 8, "rgb", 1.0, (0.0,) * 3, (1.0,) * 3))
    assert preprocessor.tensor(long, PNG).shape == (1, 3, 8, 8)
    with pytest.raises(FoothillError, match="20x20 pixels, and 1 to 399 are taken"):
        preprocessor.tensor(long, PNG, max_pixels=399)


SEEDS = [*((data, JPEG) for data in JPEGS.values()), *((data, PNG) for data in PNGS.values())]
SEEDS += [(marked(6, "JPEG"), JPEG), (marked(6, "PNG"), PNG), (interlaced(RGB), PNG)]


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again, so that what is wrong in them is read."""
    mended, at = bytearray(data), len(MAGIC)
    while at + 12 <= len(mended):
        end = at + 8 + int.from_bytes(mended[at : at + 4], "big")
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(mended[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def outcome(data: bytes, media_type: str) -> str:
    """`tensor` or the code of the refusal; anything else is a defect and raises."""
    preprocessor = Preprocessor(Preprocess(8, 8, "rgb", 1.0, (0.0,) * 3, (1.0,) * 3))
    try:
        return "tensor" if preprocessor.tensor(data, media_type).shape == (1, 3, 8, 8) else "a wrong shape"
    except FoothillError as error:
        return error.code


@given(st.sampled_from(SEEDS), st.data())
def test_a_damaged_picture_becomes_a_tensor_or_is_refused(seed: tuple[bytes, str], draw: st.DataObject) -> None:
    data, media_type = seed
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 8))):
        at = draw.draw(st.integers(0, min(len(damaged) - 1, draw.draw(st.sampled_from([50, 700, 1 << 20])))))
        damaged[at : at + draw.draw(st.sampled_from([0, 1, 1, 1, 4, 60]))] = draw.draw(st.binary(max_size=4))
    sent = with_checksums(bytes(damaged)) if media_type == PNG else bytes(damaged)
    assert outcome(sent, media_type) in ("tensor", "bad_image")
