"""Clips as a camera sends them: encoded once, kept as access units one after another, each behind its size."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

_HEAD = struct.Struct(">IB")
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}
_OPTIONS = {
    "h264": {"preset": "veryfast", "tune": "zerolatency", "bf": "0"},
    "hevc": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:bframes=0"},
    "mjpeg": {},
}


def write_clip(
    path: Path,
    pictures: Iterable[npt.NDArray[np.uint8]],
    *,
    fps: int,
    codec: str = "h264",
    gop: int = 20,
    bit_rate: int = 2_000_000,
) -> None:
    """`pictures` uint8 [height, width, 3], blue first, all of one size; a keyframe every `gop` of them."""
    with path.open("wb") as file:
        for packet in _encoded(pictures, fps, codec, gop, bit_rate):
            data = bytes(packet)
            file.write(_HEAD.pack(len(data), packet.is_keyframe) + data)


def pictures_of(path: Path, *, most: int = 1 << 30) -> Iterator[npt.NDArray[np.uint8]]:
    """Those of a video file, blue first."""
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= most:
                return
            yield cast("npt.NDArray[np.uint8]", frame.to_ndarray(format="bgr24"))


def walkers(count: int, *, width: int = 320, height: int = 240, seed: int = 1) -> Iterator[npt.NDArray[np.uint8]]:
    """Squares that move over a ground that stands still, under a camera's noise."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 120, (height, width, 3), np.uint8)
    for number in range(count):
        picture = ground.astype(np.int16) + rng.integers(-3, 4, ground.shape)
        for which in range(3):
            left = (number * (2 + which) + 40 * which) % (width - 32)
            top = 20 + which * (height - 60) // 3
            picture[top : top + 40, left : left + 24] = 230 - 60 * which
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _encoded(
    pictures: Iterable[npt.NDArray[np.uint8]], fps: int, codec: str, gop: int, bit_rate: int
) -> Iterator[av.Packet[VideoStream]]:
    encoder: av.VideoCodecContext | None = None
    for picture in pictures:
        if encoder is None:
            encoder = cast(av.VideoCodecContext, av.CodecContext.create(_ENCODERS[codec], "w"))
            encoder.height, encoder.width = picture.shape[:2]
            encoder.framerate, encoder.gop_size, encoder.bit_rate = fps, gop, bit_rate  # type: ignore[assignment]
            encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            encoder.options = dict(_OPTIONS[codec])
        yield from encoder.encode(av.VideoFrame.from_ndarray(picture, format="bgr24"))
    if encoder is not None:
        yield from encoder.encode(None)
