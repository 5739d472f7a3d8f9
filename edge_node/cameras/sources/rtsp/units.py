"""Pictures of H.264 (RFC 6184) and H.265 (RFC 7798) from the packets that they came in."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from edge_node.cameras.sources.rtsp.description import Codec
from edge_node.cameras.sources.rtsp.rtp import Packet

_START = b"\0\0\0\1"
_MOST_BYTES = 32 << 20
"""Of one picture."""
_RECOVERY = 6
"""Supplemental information of this kind says: from here on a decoder can begin (H.264, D.1.7)."""


class Encoded(NamedTuple):
    """One picture in Annex B; `ticks` as its packets say. A decoder can begin with a `key`; `sets`: it has its
    parameter sets with it."""

    data: bytes
    ticks: int
    key: bool
    sets: bool


class Packing(Protocol):
    """How the units of a codec lie in payloads, and what they are."""

    def units(self, payload: bytes) -> list[bytes] | None:
        """Those that are whole with this payload; one that goes on in the next is kept. None: it makes no sense."""
        ...

    def forget(self) -> None:
        """Something is missing: what was begun will not be whole."""
        ...

    def is_picture(self, unit: bytes) -> bool: ...

    def is_key(self, unit: bytes) -> bool: ...

    def is_set(self, unit: bytes) -> bool: ...


class H264:
    _AGGREGATE, _FRAGMENT = 24, 28

    def __init__(self) -> None:
        self._begun = bytearray()

    def units(self, payload: bytes) -> list[bytes] | None:
        kind = payload[0] & 0x1F if payload else 0
        if 1 <= kind <= 23:
            self._begun.clear()
            return [payload]
        if kind == self._AGGREGATE:
            return _aggregated(payload, 1)
        if kind == self._FRAGMENT and len(payload) > 2:
            head = payload[1]
            return _fragment(self._begun, head, bytes((payload[0] & 0xE0 | head & 0x1F,)), payload, 2)
        return None

    def forget(self) -> None:
        self._begun.clear()

    def is_picture(self, unit: bytes) -> bool:
        return 1 <= unit[0] & 0x1F <= 5

    def is_key(self, unit: bytes) -> bool:
        kind = unit[0] & 0x1F
        return kind == 5 or (kind == 6 and _RECOVERY in _informed(unit))

    def is_set(self, unit: bytes) -> bool:
        return unit[0] & 0x1F == 7


class H265:
    _AGGREGATE, _FRAGMENT = 48, 49

    def __init__(self) -> None:
        self._begun = bytearray()

    def units(self, payload: bytes) -> list[bytes] | None:
        if len(payload) < 3:
            return None
        kind = payload[0] >> 1 & 0x3F
        if kind < self._AGGREGATE:
            self._begun.clear()
            return [payload]
        if kind == self._AGGREGATE:
            return _aggregated(payload, 2)
        if kind == self._FRAGMENT and len(payload) > 3:
            head = payload[2]
            return _fragment(self._begun, head, bytes((payload[0] & 0x81 | (head & 0x3F) << 1, payload[1])), payload, 3)
        return None

    def forget(self) -> None:
        self._begun.clear()

    def is_picture(self, unit: bytes) -> bool:
        return unit[0] >> 1 & 0x3F < 32

    def is_key(self, unit: bytes) -> bool:
        return 16 <= unit[0] >> 1 & 0x3F <= 23

    def is_set(self, unit: bytes) -> bool:
        return unit[0] >> 1 & 0x3F == 33


class Assembly:
    """Pictures from packets in their order. `sets` are put before a key that comes without any.

    A picture is whole with the packet that is marked as its last. A camera that marks others too is found out by what
    comes after it with the same time; from then on, and where none is marked, the next picture's beginning says it.
    """

    def __init__(self, codec: Codec, sets: bytes) -> None:
        self._packing: Packing = H264() if codec == "h264" else H265()
        self._sets = sets
        self._units: list[bytes] = []
        self._bytes = 0
        self._ticks = -1
        self._has_picture = self._key = self._has_sets = False
        self._given = -1
        self._believes = True
        self.corrupt = 0
        """Packets that made no sense, and times that some were missing."""

    def put(self, packet: Packet, missing: bool) -> list[Encoded]:
        whole: list[Encoded] = []
        if missing:
            self.corrupt += 1
            self._packing.forget()
        if packet.ticks != self._ticks:
            whole += self._given_out()
            self._ticks = packet.ticks
        units = self._packing.units(packet.payload) if packet.payload else []
        if units is None:
            self.corrupt += 1
            return whole
        for unit in units:
            self._add(unit)
        if packet.marker and self._believes and self._has_picture:
            whole += self._given_out()
        return whole

    def _add(self, unit: bytes) -> None:
        if self._bytes + len(unit) > _MOST_BYTES:
            self.corrupt += 1
            self._clear()
        packing = self._packing
        if packing.is_picture(unit):
            self._has_picture = True
            if self._ticks == self._given:
                self._believes = False
        self._key |= packing.is_key(unit)
        self._has_sets |= packing.is_set(unit)
        self._units.append(unit)
        self._bytes += len(unit)

    def _given_out(self) -> list[Encoded]:
        """What comes without a picture belongs to the next one."""
        if not self._has_picture:
            return []
        data = b"".join(part for unit in self._units for part in (_START, unit))
        if self._key and not self._has_sets and self._sets:
            data = self._sets + data
        given = Encoded(data, self._ticks, self._key, self._has_sets or bool(self._sets))
        self._given = self._ticks
        self._clear()
        return [given]

    def _clear(self) -> None:
        self._units = []
        self._bytes = 0
        self._has_picture = self._key = self._has_sets = False


def _aggregated(payload: bytes, at: int) -> list[bytes] | None:
    """Units behind their lengths, of two bytes each."""
    units: list[bytes] = []
    while at + 2 < len(payload):
        size = int.from_bytes(payload[at : at + 2], "big")
        unit = payload[at + 2 : at + 2 + size]
        if len(unit) < max(size, 1):
            return None
        units.append(unit)
        at += 2 + size
    return units


def _fragment(begun: bytearray, head: int, unit_head: bytes, payload: bytes, at: int) -> list[bytes] | None:
    """The first bit of `head` says that a unit begins, the second that it ends. What has lost its beginning is
    left out."""
    if head & 0x80:
        begun[:] = unit_head
    elif not begun:
        return []
    begun += payload[at:]
    if len(begun) > _MOST_BYTES:
        begun.clear()
        return None
    if not head & 0x40:
        return []
    unit = bytes(begun)
    begun.clear()
    return [unit]


def _informed(unit: bytes) -> list[int]:
    """The kinds of supplemental information in a unit (H.264, 7.3.2.3.1)."""
    kinds: list[int] = []
    at = 1
    while at + 2 < len(unit):
        kind, at = _number(unit, at)
        size, at = _number(unit, at)
        kinds.append(kind)
        at += size
    return kinds


def _number(unit: bytes, at: int) -> tuple[int, int]:
    """Bytes of 255 add up, with the first that is none."""
    number = 0
    while at < len(unit) and unit[at] == 0xFF:
        number, at = number + 255, at + 1
    return number + (unit[at] if at < len(unit) else 0), at + 1
