"""What comes of a stream's packets: pictures, the camera's clock, and reports to it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import NamedTuple

from edge_node.cameras.sources.rtsp.description import Video
from edge_node.cameras.sources.rtsp.reports import Bye, Clock, Received, reports_of
from edge_node.cameras.sources.rtsp.rtp import Order, Ticks, packet_of
from edge_node.cameras.sources.rtsp.units import Assembly, Encoded
from edge_node.cameras.sources.trouble import Trouble


class Came(NamedTuple):
    """`ticks` and `stamp_s` since the first picture, by the clock of the packets; `arrived_s` here, in unix time;
    `began_s`: what the camera says the unix time was when that clock was 0, None while it has not."""

    picture: Encoded
    ticks: int
    stamp_s: float
    arrived_s: float
    began_s: float | None


class Media:
    """The video of one session. `patience`: see Order."""

    def __init__(self, video: Video, patience: int) -> None:
        self._kind = video.kind
        self._rate = video.rate
        self._order = Order(patience)
        self._assembly = Assembly(video.codec, video.sets)
        self._ticks = Ticks()
        self._source: int | None = None
        self._clock: Clock | None = None
        self._clock_came_s = 0.0
        self._received = Received(random.getrandbits(32))
        self._told_corrupt = 0

    def packet(self, data: bytes) -> Iterator[Came]:
        """What is whole with it."""
        packet = packet_of(data)
        if packet is None or packet.kind != self._kind:
            return
        if packet.source != self._source:
            self._begin(packet.source)
        for due, missing in self._order.put(packet, time.monotonic()):
            for picture in self._assembly.put(due, missing):
                yield self._came(picture)

    def hear(self, data: bytes) -> None:
        """Reports of the camera. Raises Trouble where it says that this was all."""
        for report in reports_of(data):
            if report.source != self._source:
                continue
            if isinstance(report, Bye):
                raise Trouble("lost", "the stream ended")
            self._clock, self._clock_came_s = report, time.monotonic()

    def report(self) -> bytes | None:
        """What has come so far; None while nothing has."""
        if self._source is None:
            return None
        return self._received.report(self._source, self._order, self._clock, time.monotonic() - self._clock_came_s)

    def new_corrupt(self) -> int:
        """How much of it was missing or made no sense, since this was last asked."""
        new, self._told_corrupt = self._assembly.corrupt - self._told_corrupt, self._assembly.corrupt
        return new

    def _begin(self, source: int) -> None:
        """A camera may begin anew in the middle, with another number of its own."""
        if self._source is not None:
            self._order.forget()
            self._ticks.begin_anew()
        self._source, self._clock = source, None

    def _came(self, picture: Encoded) -> Came:
        ticks = self._ticks.since_begin(picture.ticks)
        began_s = None
        if self._clock is not None:
            began_s = self._clock.at_s - self._ticks.of(self._clock.ticks) / self._rate
        return Came(picture, ticks, ticks / self._rate, time.time(), began_s)
