"""A camera over RTSP as a source of pictures."""

from __future__ import annotations

import heapq
import io
import threading
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from edge_node.cameras.sources.clock import CaptureClock
from edge_node.cameras.sources.decoder import Decoder
from edge_node.cameras.sources.hardware import hardware_for
from edge_node.cameras.sources.rtsp.media import Came
from edge_node.cameras.sources.rtsp.session import Session
from edge_node.cameras.sources.shot import Colouring, Decoded
from edge_node.cameras.sources.source import Corrupt, Facts, Tap
from edge_node.cameras.sources.wishes import Wishes

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream


_MOST_DELAYED = 16
"""Pictures that H.264 and H.265 may hold back."""


class Camera:
    """Of a session that is set up. Raises Trouble."""

    def __init__(self, session: Session, wishes: Wishes, corrupt: Corrupt, tap: Tap | None) -> None:
        from av import CodecContext
        from av.codec.context import Flags

        hardware = hardware_for(wishes.decoder)
        self._hardware = hardware.name
        self._clock = CaptureClock()
        self._behind_s = 0.0
        self.received_bytes = 0
        self._session = session
        codec = session.video.codec
        context = CodecContext.create(codec, "r", hwaccel=hardware.hwaccel)
        context.flags |= Flags.low_delay
        self._decoder = Decoder(context, wishes, corrupt)
        self._colouring = Colouring()
        self._base = Fraction(1, session.video.rate)
        self._film = _Film(tap, codec, self._base) if tap is not None else None

    @property
    def facts(self) -> Facts:
        context = self._decoder.context
        return Facts(context.name, self._hardware if context.is_hwaccel else "")

    def shots(self, stopped: threading.Event) -> Iterator[Decoded]:
        number = 0
        for came in self._session.pictures(stopped):
            self.received_bytes += len(came.picture.data)
            packet = _packet(came, self._base)
            if self._film is not None:
                self._film.show(packet, came, came.arrived_s - self._behind_s)
            for frame in self._decoder.pictures(packet):
                number += 1
                at_s = self._clock.at_s(frame.time, came.arrived_s, came.began_s)
                self._behind_s = came.arrived_s - at_s
                yield Decoded(frame, at_s, number, self._colouring)

    def close(self) -> None:
        self._session.close()
        if self._film is not None:
            self._film.close()


class _Film:
    """What is shown to a tap. It is told what the stream is as FFmpeg understands the first key by itself."""

    def __init__(self, tap: Tap, codec: str, base: Fraction) -> None:
        self._tap = tap
        self._format = codec
        self._base = base
        self._told: InputContainer | None = None
        self._order = _Order()

    def show(self, packet: Packet[VideoStream], came: Came, at_s: float) -> None:
        picture = came.picture
        packet.dts = self._order.decoded_at(came.ticks)
        if self._told is None:
            if not (picture.key and picture.sets):
                return
            self._begin(picture.data)
        self._tap.put(packet, at_s)

    def close(self) -> None:
        if self._told is not None:
            self._told.close()

    def _begin(self, key: bytes) -> None:
        import av
        from av.error import FFmpegError

        try:
            self._told = av.open(io.BytesIO(key), "r", format=self._format)
        except FFmpegError:
            return
        stream = self._told.streams.video[0]
        stream.time_base = self._base
        self._tap.begin(stream)


class _Order:
    """When each picture is to be decoded: RTP says only when it is shown. Of pictures that are shown in another order
    than they come, the times are the same, each taken by an earlier one."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_MOST_DELAYED)
        self._waiting: list[int] = []
        self._delay = 0

    def decoded_at(self, ticks: int) -> int:
        self._delay = max(self._delay, sum(before > ticks for before in self._recent))
        self._recent.append(ticks)
        heapq.heappush(self._waiting, ticks)
        while len(self._waiting) > self._delay + 1:
            heapq.heappop(self._waiting)
        return self._waiting[0]


def _packet(came: Came, base: Fraction) -> Packet[VideoStream]:
    """Decoders read some bytes beyond a packet's end: one of a size has them, one around bytes has not."""
    import av

    data = came.picture.data
    packet = cast("Packet[VideoStream]", av.Packet(len(data)))
    packet.update(data)
    packet.time_base = base
    packet.pts = came.ticks
    packet.is_keyframe = came.picture.key
    return packet
