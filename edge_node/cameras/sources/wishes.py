"""How a source is to be opened and read."""

from __future__ import annotations

from typing import Literal

import msgspec

Transport = Literal["tcp", "udp"]
Demuxer = Literal["auto", "ffmpeg"]
Pace = Literal["realtime", "every-frame"]


class Wishes(msgspec.Struct, frozen=True):
    """`demuxer`: `ffmpeg` leaves RTSP to FFmpeg, also where it is read here. `decoder`: `auto` takes hardware where
    FFmpeg offers some that works, `software` never does, any other word names one of FFmpeg's device types.

    `pace` and `loop` are for files: `every-frame` waits for whoever takes the pictures. `interval_s` is between
    snapshots, and between looks into a folder. Nothing for `stall_s` is the end of a stream.
    """

    transport: Transport = "tcp"
    demuxer: Demuxer = "auto"
    decoder: str = "auto"
    decoder_threads: int = 1
    keyframes_only: bool = False
    pace: Pace = "realtime"
    loop: bool = False
    interval_s: float = 1.0
    open_timeout_s: float = 10.0
    stall_s: float = 5.0
    max_pixels: int = 50_000_000
