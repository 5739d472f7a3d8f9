"""Pictures that FFmpeg reads: streams, videos in files, webcams. Blocks: for a thread of its own.

Of PyAV everything is imported here, when the first such source is opened.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edge_node.cameras.sources.address import Address
from edge_node.cameras.sources.clock import CaptureClock
from edge_node.cameras.sources.http_login import DENIED
from edge_node.cameras.sources.shot import Decoded
from edge_node.cameras.sources.source import Corrupt, Facts, Tap
from edge_node.cameras.sources.trouble import Trouble, without
from edge_node.cameras.sources.wishes import Wishes

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer
    from av.video.stream import VideoStream

_LIVE = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000", "fpsprobesize": "0"}
"""Nothing is held back that could be shown; what a stream is shows within a second."""
_FORMATS = {"mjpeg": "mpjpeg", "device": "v4l2"}
_DEVICES = {"cuda": "/dev/nvidia0", "vaapi": "/dev/dri/renderD128"}
"""Of the kinds of hardware that FFmpeg knows, those that are tried unasked, where their device is there."""
_BETWEEN_S = 0.04
"""Between the last picture of a file and the first one of its next round."""
_MOST_CORRUPT = 250
"""So many packets in a row that give no picture are no stream."""


class Stream:
    """`secret` is the password, which FFmpeg repeats in what it complains of."""

    def __init__(self, address: Address, login: tuple[str, str], wishes: Wishes, corrupt: Corrupt, tap: Tap | None):
        self._address = address
        self._wishes = wishes
        self._corrupt = corrupt
        self._tap = tap
        self._secrets = (login[1], address.with_login(*login) if login[0] else "")
        self._clock = CaptureClock()
        self._number = 0
        self._began_s: float | None = None
        self._last_s = 0.0
        self._hardware = ""
        self._container = self._guarded(lambda: self._open(address.with_login(*login)))
        try:
            if not self._container.streams.video:
                raise Trouble("lost", "there is no video in it: correct the address, or choose another stream")
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = wishes.decoder_threads
            if wishes.keyframes_only:
                self._stream.codec_context.skip_frame = "NONKEY"
        except BaseException:
            self._container.close()
            raise

    @property
    def facts(self) -> Facts:
        context = self._stream.codec_context
        return Facts(context.name, self._hardware if context.is_hwaccel else "")

    def shots(self, stopped: threading.Event) -> Iterator[Decoded]:
        while True:
            yield from self._through(stopped)
            if stopped.is_set():
                return
            if self._address.kind != "file":
                raise Trouble("lost", "the stream ended")
            if not self._wishes.loop:
                raise Trouble("ended", "the file is over")
            self._began_s = None
            self._guarded(lambda: self._container.seek(0))

    def close(self) -> None:
        self._container.close()

    def _through(self, stopped: threading.Event) -> Iterator[Decoded]:
        """All that comes before an end."""
        if self._tap is not None:
            self._tap.begin(self._stream)
        packets, fruitless = self._container.demux(self._stream), 0
        while not stopped.is_set():
            packet = self._guarded(lambda: next(packets, None))
            if packet is None:
                return
            arrived_s = time.time()
            if self._tap is not None and packet.size:
                self._tap.put(packet, arrived_s)
            frames = self._decoded(packet)
            fruitless = 0 if frames else fruitless + 1
            if fruitless > _MOST_CORRUPT and not self._wishes.keyframes_only:
                raise Trouble("lost", f"nothing of {fruitless} packets in a row can be decoded")
            for frame in frames:
                if not self._wait_for(frame, stopped):
                    return
                self._number += 1
                yield Decoded(frame, self._at_s(frame, arrived_s), self._number)

    def _decoded(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        """Broken packets are a matter of course on radio and UDP: the next keyframe mends what they leave behind."""
        from av.error import FFmpegError

        try:
            frames = packet.decode()
        except FFmpegError:
            self._corrupt()
            return []
        whole: list[VideoFrame] = []
        for frame in frames:
            if frame.is_corrupt:
                self._corrupt()
            else:
                whole.append(frame)
        return whole

    def _wait_for(self, frame: VideoFrame, stopped: threading.Event) -> bool:
        """Of a file no picture comes before its time. False once it is stopped."""
        if self._address.kind != "file" or self._wishes.pace != "realtime" or frame.time is None:
            return True
        if self._began_s is None:
            self._began_s = time.monotonic() - frame.time
        return not stopped.wait(max(0.0, self._began_s + frame.time - time.monotonic()))

    def _at_s(self, frame: VideoFrame, arrived_s: float) -> float:
        if self._address.kind == "file":
            return self._at_s_of_file(frame)
        began_us = self._container.start_time_realtime
        return self._clock.at_s(frame.time, arrived_s, began_us / 1e6 if began_us else None)

    def _at_s_of_file(self, frame: VideoFrame) -> float:
        """Now, where it is played; else as much later than the beginning as it says itself."""
        if self._wishes.pace == "realtime" or frame.time is None:
            return time.time()
        if self._began_s is None:
            self._began_s = max(time.time(), self._last_s + _BETWEEN_S) - frame.time
        self._last_s = self._began_s + frame.time
        return self._last_s

    def _open(self, url: str) -> InputContainer:
        hwaccel = self._hwaccel()
        self._hardware = hwaccel[0] if hwaccel else ""
        return _opened(
            url,
            format=_FORMATS.get(self._address.kind),
            options=self._options(),
            timeout=(self._wishes.open_timeout_s, self._wishes.stall_s),
            hwaccel=hwaccel[1] if hwaccel else None,
        )

    def _options(self) -> dict[str, str]:
        kind = self._address.kind
        if kind == "file":
            return {}
        if kind == "rtsp":
            return {**_LIVE, "rtsp_transport": self._wishes.transport, "allowed_media_types": "video"}
        return dict(_LIVE)

    def _hwaccel(self) -> tuple[str, HWAccel] | None:
        from av.codec.hwaccel import HWAccel, hwdevices_available

        wanted = self._wishes.decoder
        if wanted == "software":
            return None
        offered = hwdevices_available()
        if wanted != "auto":
            if wanted not in offered:
                told = ", ".join(offered) or "none"
                raise Trouble("lost", f"FFmpeg here knows no decoder {wanted!r}; it has {told}: use auto or software")
            return wanted, HWAccel(wanted)
        there = (name for name, device in _DEVICES.items() if name in offered and os.path.exists(device))
        found = next(there, None)
        return (found, HWAccel(found, allow_software_fallback=True)) if found else None

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """What FFmpeg raises, as Trouble, and no secret in it."""
        from av.error import FFmpegError

        try:
            return work()
        except FFmpegError as error:
            raise _trouble(error, self._secrets, self._wishes) from None


def _opened(url: str, **options: Any) -> InputContainer:
    import av

    opened: InputContainer = av.open(url, "r", metadata_errors="replace", **options)
    return opened


def _trouble(error: Exception, secrets: tuple[str, ...], wishes: Wishes) -> Trouble:
    from av import error as errors

    if isinstance(error, (errors.HTTPUnauthorizedError, errors.HTTPForbiddenError, errors.PermissionError)):
        return Trouble("denied", DENIED)
    if isinstance(error, (errors.ExitError, errors.TimeoutError, errors.BlockingIOError)):
        return Trouble("lost", f"nothing came from it for {wishes.stall_s:g} s")
    if isinstance(error, (errors.HTTPNotFoundError, errors.FileNotFoundError)):
        return Trouble("lost", "nothing is there: correct the path in the address")
    if isinstance(error, errors.ConnectionRefusedError):
        return Trouble("lost", "it refuses connections: is it on, and the port right?")
    return Trouble("lost", without(secrets, getattr(error, "strerror", None) or str(error) or type(error).__name__))
