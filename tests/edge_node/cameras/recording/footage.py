"""Real encoded footage, made by the encoders that PyAV brings, and a camera that plays it into a ring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.stream import VideoStream

from edge_node.cameras.recording.ring import Ring

NOW_S = 1_800_000_000.0
RATE = 25

H264 = ("libx264", {"bf": "2", "preset": "ultrafast", "x264-params": "scenecut=0:bframes=2"}, "mp4")
H264_ANNEX_B = (H264[0], H264[1], "mpegts")
HEVC = ("libx265", {"preset": "ultrafast", "x265-params": "bframes=3:scenecut=0:log-level=none:pools=1"}, "mp4")
HEVC_ANNEX_B = (HEVC[0], HEVC[1], "mpegts")
_H264_OPEN = "open-gop=1:keyint=24:min-keyint=1:scenecut=0:bframes=2:b-adapt=0"
H264_OPEN = (H264[0], {"preset": "ultrafast", "x264-params": _H264_OPEN}, "mp4")
"""Pictures that are shown before a keyframe come after it, and need some from before it."""
_HEVC_OPEN = "open-gop=1:bframes=4:b-adapt=0:scenecut=0:log-level=none:pools=1"
HEVC_OPEN = (HEVC[0], {"preset": "ultrafast", "x265-params": _HEVC_OPEN}, "mp4")
MJPEG: tuple[str, dict[str, str], str] = ("mjpeg", {}, "matroska")
MPEG4: tuple[str, dict[str, str], str] = ("mpeg4", {}, "avi")
KINDS = {
    "h264": H264, "h264-annex-b": H264_ANNEX_B, "hevc": HEVC, "hevc-annex-b": HEVC_ANNEX_B, "mjpeg": MJPEG,
    "mpeg4": MPEG4, "h264-open": H264_OPEN, "hevc-open": HEVC_OPEN,
}  # fmt: skip


def film(
    path: Path,
    kind: tuple[str, dict[str, str], str] = H264,
    *,
    seconds: float = 4.0,
    gop: int = RATE,
    size: tuple[int, int] = (160, 120),
    noise: bool = False,
) -> Path:
    """A moving bar, and noise where the file should not be small."""
    codec, options, container = kind
    rng = np.random.default_rng(7)
    with av.open(str(path), "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(round(seconds * RATE)):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            if noise:
                picture[:] = rng.integers(0, 255, picture.shape, np.uint8)
            picture[:, number % size[0] : number % size[0] + 16] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


class Sent(NamedTuple):
    """A packet as it stands in a file."""

    data: bytes
    pts: int | None
    dts: int | None
    key: bool


def packets(path: Path) -> list[Sent]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [Sent(bytes(p), p.pts, p.dts, p.is_keyframe) for p in container.demux(stream) if p.size]


def frames(path: Path, *, strict: bool = True) -> list[av.VideoFrame]:
    """All pictures of a file; any error in decoding raises, if `strict` any oddity too."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if strict:
            stream.codec_context.options = {"err_detect": "explode"}
        return list(container.decode(stream))


def base_of(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        base: Fraction | None = container.streams.video[0].time_base
        assert base is not None
        return base


Change = Callable[["av.Packet[VideoStream]", int], None]


class Camera:
    """Plays files into a ring, one after another as if it had been opened again. `now_s` is the time of what came last.

    `change` is done to every packet before it is put, with its number.
    """

    def __init__(self, ring: Ring, *, change: Change = lambda packet, number: None) -> None:
        self.ring = ring
        self.now_s = NOW_S
        self._change = change

    def play(self, path: Path, *, step: Callable[[], None] = lambda: None, every: int = RATE) -> None:
        """`step` is called after every so many packets."""
        for number, _ in enumerate(self.playing(path), 1):
            if number % every == 0:
                step()

    def playing(self, path: Path) -> Iterator[float]:
        begun_s = self.now_s
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            self.ring.begin(stream)
            for number, packet in enumerate(container.demux(stream)):
                self._change(packet, number)
                self.now_s = begun_s + number / RATE
                self.ring.put(packet, self.now_s)
                yield self.now_s


def units(data: Iterable[bytes]) -> list[bytes]:
    """The H.264 or H.265 units of Annex B packets that are pictures or SEI, whatever start codes stand before them."""
    return [unit.rstrip(b"\0") for packet in data for unit in packet.split(b"\0\0\1")[1:]]


def lengths_to_units(data: Iterable[bytes]) -> list[bytes]:
    """The units of packets as MP4 has them."""
    found = []
    for packet in data:
        at = 0
        while at < len(packet):
            size = int.from_bytes(packet[at : at + 4], "big")
            found.append(packet[at + 4 : at + 4 + size].rstrip(b"\0"))
            at += 4 + size
    return found
