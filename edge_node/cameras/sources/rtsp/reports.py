"""What both ends say of the packets (RTCP, RFC 3550, 6): the camera what its clock says, we what has come."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from edge_node.cameras.sources.rtsp.rtp import Order

_HEAD = struct.Struct(">BBH")
_SENDER = struct.Struct(">IIII")
_RECEIVER = struct.Struct(">BBHIIIIIII")
_SENDER_KIND, _RECEIVER_KIND, _DESCRIPTION_KIND, _BYE_KIND = 200, 201, 202, 203
_NTP_S = 2_208_988_800
"""Between 1900, when the time of NTP begins, and 1970."""
_CNAME = b"\x01\x08foothill\0\0"
"""Who reports, for SDES (6.5.1), filled to whole words."""


class Clock(NamedTuple):
    """A sender's report: at unix time `at_s` the clock of its packets said `ticks`. `middle`: what an answer refers to
    it by."""

    source: int
    at_s: float
    ticks: int
    middle: int


class Bye(NamedTuple):
    """The stream of that source is over."""

    source: int


def reports_of(data: bytes) -> Iterator[Clock | Bye]:
    """All of a packet that are of use here."""
    at = 0
    while at + _HEAD.size <= len(data):
        first, kind, words = _HEAD.unpack_from(data, at)
        end = at + 4 * (words + 1)
        if first >> 6 != 2 or end > len(data):
            return
        body = data[at + _HEAD.size : end]
        if kind == _SENDER_KIND and len(body) >= _SENDER.size:
            source, seconds, fraction, ticks = _SENDER.unpack_from(body)
            at_s = seconds - _NTP_S + fraction / (1 << 32)
            yield Clock(source, at_s, ticks, (seconds & 0xFFFF) << 16 | fraction >> 16)
        elif kind == _BYE_KIND and first & 0x1F and len(body) >= 4:
            yield Bye(int.from_bytes(body[:4], "big"))
        at = end


class Received:
    """What is reported of one stream; `own` is who says it, a random number."""

    def __init__(self, own: int) -> None:
        self._own = own
        self._last_lost = 0
        self._last_received = 0

    def report(self, source: int, order: Order, heard: Clock | None, since_s: float) -> bytes:
        """`heard`: the last report of the sender, that came `since_s` ago."""
        lost, came = order.lost - self._last_lost, order.received - self._last_received
        self._last_lost, self._last_received = order.lost, order.received
        fraction = min(255, 256 * lost // (lost + came)) if lost + came else 0
        total = min(order.lost, 0x7FFFFF)
        middle, delay = (heard.middle, min(int(since_s * 65536), 0xFFFFFFFF)) if heard else (0, 0)
        block = (source, fraction << 24 | total, order.highest & 0xFFFFFFFF, 0, middle, delay)
        said = _RECEIVER.pack(0x81, _RECEIVER_KIND, 7, self._own, *block)
        return said + struct.pack(">BBHI", 0x81, _DESCRIPTION_KIND, 1 + len(_CNAME) // 4, self._own) + _CNAME
