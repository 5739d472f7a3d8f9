"""Pictures that FFmpeg reads: streams, videos in files, webcams. Blocks: for a thread of its own.

Of PyAV everything is imported here, when the first such source is opened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edge_node.cameras.sources.address import Address
from edge_node.cameras.sources.clock import CaptureClock
from edge_node.cameras.sources.decoder import Decoder
from edge_node.cameras.sources.hardware import hardware_for
from edge_node.cameras.sources.http_login import DENIED
from edge_node.cameras.sources.rtsp.description import NO_VIDEO
from edge_node.cameras.sources.shot import Colouring, Decoded
from edge_node.cameras.sources.source import Corrupt, Facts, Tap
from edge_node.cameras.sources.trouble import Trouble, without
from edge_node.cameras.sources.wishes import Wishes

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_LIVE = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000", "fpsprobesize": "0"}
"""Nothing is held back that could be shown; what a stream is shows within a second."""
_FORMATS = {"mjpeg": "mpjpeg", "device": "v4l2"}
_BETWEEN_S = 0.04
"""Between the last picture of a file and the first one of its next round."""


class Stream:
    """`secret` is the password, which FFmpeg repeats in what it complains of."""

    def __init__(self, address: Address, login: tuple[str, str], wishes: Wishes, corrupt: Corrupt, tap: Tap | None):
        self._address = address
        self._wishes = wishes
        self._tap = tap
        self._secrets = (login[1], address.with_login(*login) if login[0] else "")
        self._clock = CaptureClock()
        self._number = 0
        self.received_bytes = 0
        self._began_s: float | None = None
        self._last_s = 0.0
        self._behind_s = 0.0
        self._hardware = ""
        self._container = self._guarded(lambda: self._open(address.with_login(*login)))
        try:
            if not self._container.streams.video:
                raise Trouble("lost", NO_VIDEO)
            self._stream = self._container.streams.video[0]
            self._decoder = Decoder(self._stream.codec_context, wishes, corrupt)
            self._colouring = Colouring()
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
        packets = self._container.demux(self._stream)
        while not stopped.is_set():
            packet = self._guarded(lambda: next(packets, None))
            if packet is None:
                return
            arrived_s = time.time()
            self.received_bytes += packet.size
            if self._tap is not None and packet.size:
                self._tap.put(packet, arrived_s - self._behind_s)
            for frame in self._decoder.pictures(packet):
                if not self._wait_for(frame, stopped):
                    return
                self._number += 1
                at_s = self._at_s(frame, arrived_s)
                self._behind_s = arrived_s - at_s
                yield Decoded(frame, at_s, self._number, self._colouring)

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
        hardware = hardware_for(self._wishes.decoder)
        self._hardware = hardware.name
        return _opened(
            url,
            format=_FORMATS.get(self._address.kind),
            options=self._options(),
            timeout=(self._wishes.open_timeout_s, self._wishes.stall_s),
            hwaccel=hardware.hwaccel,
        )

    def _options(self) -> dict[str, str]:
        kind = self._address.kind
        if kind == "file":
            return {}
        if kind == "rtsp":
            return {**_LIVE, "rtsp_transport": self._wishes.transport, "allowed_media_types": "video"}
        return dict(_LIVE)

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
