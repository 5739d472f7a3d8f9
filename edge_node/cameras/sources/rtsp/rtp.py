"""Packets of media (RTP, RFC 3550, 5): what they say of themselves, and their order."""

from __future__ import annotations

import heapq
import struct
from typing import NamedTuple

_HEAD = struct.Struct(">BBHII")
_LENGTH = struct.Struct(">H")
_VERSION = 2
_LATE = 3000
"""A packet is late where its number is so far behind what is expected; further away, the camera counts anew. RFC 3550,
appendix A.1."""
_PATIENCE_S = 0.05
_NUMBERS = 1 << 16
_TICKS = 1 << 32


class Packet(NamedTuple):
    """`number` and `ticks` begin anew after 16 and 32 bits; `marker` says: it is the last one of its picture."""

    kind: int
    number: int
    ticks: int
    source: int
    marker: bool
    payload: bytes


def packet_of(data: bytes) -> Packet | None:
    """None where it is none."""
    if len(data) < _HEAD.size:
        return None
    first, second, number, ticks, source = _HEAD.unpack_from(data)
    if first >> 6 != _VERSION:
        return None
    begin, end = _HEAD.size + 4 * (first & 0x0F), len(data)
    if first & 0x10:  # an extension: a word that says how many words follow
        if end < begin + 4:
            return None
        begin += 4 + 4 * _LENGTH.unpack_from(data, begin + 2)[0]
    if first & 0x20:  # padding: its last byte says how much
        end -= data[-1]
    return Packet(second & 0x7F, number, ticks, source, second >= 0x80, data[begin:end]) if begin <= end else None


class Order:
    """Packets by their numbers. One that is missing is waited for until `patience` others have come after it, or one
    that came `_PATIENCE_S` after the first of them.

    `lost` counts those that never came, `highest` is the newest number, with the rounds it has made above 16 bits.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._waiting: list[tuple[int, Packet]] = []
        self._since_s = 0.0
        self._expected = -1
        self.lost = 0
        self.received = 0

    @property
    def highest(self) -> int:
        return self._expected - 1

    def put(self, packet: Packet, now_s: float) -> list[tuple[Packet, bool]]:
        """Those whose turn has come; and of each, whether something is missing before it. `now_s` by a clock that does
        not jump."""
        self.received += 1
        if self._expected < 0:
            self._expected = packet.number
        ahead = (packet.number - self._expected) % _NUMBERS
        if ahead == 0 and not self._waiting:
            self._expected += 1
            return [(packet, False)]
        if ahead >= _NUMBERS - _LATE:
            return []
        if ahead > _LATE:
            return self._anew(packet)
        if not self._waiting:
            self._since_s = now_s
        heapq.heappush(self._waiting, (self._expected + ahead, packet))
        return self._due(now_s - self._since_s > _PATIENCE_S)

    def _due(self, late: bool) -> list[tuple[Packet, bool]]:
        due: list[tuple[Packet, bool]] = []
        while self._waiting and (late or self._waiting[0][0] <= self._expected or len(self._waiting) > self._patience):
            number, packet = heapq.heappop(self._waiting)
            if number < self._expected:  # it came twice
                continue
            due.append((packet, number > self._expected))
            self.lost += number - self._expected
            self._expected = number + 1
        return due

    def forget(self) -> None:
        """The next packet is the first."""
        self._waiting.clear()
        self._expected = -1

    def _anew(self, packet: Packet) -> list[tuple[Packet, bool]]:
        self._waiting.clear()
        self._expected = packet.number + 1
        return [(packet, True)]


class Ticks:
    """A stream's clock without its rounds: 0 at the first picture, never further than half a round from the last."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._last = 0

    def since_begin(self, ticks: int) -> int:
        """Remembers it."""
        if self._first is None:
            self._first = (ticks - self._last) % _TICKS
        self._last = self.of(ticks)
        return self._last

    def begin_anew(self) -> None:
        """The next picture comes right after the last one, whatever its clock says."""
        self._first = None

    def of(self, ticks: int) -> int:
        if self._first is None:
            return 0
        ahead = (ticks - self._first - self._last) % _TICKS
        return self._last + (ahead - _TICKS if ahead >= _TICKS // 2 else ahead)
