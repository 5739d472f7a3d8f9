"""Pictures into RTP packets, as cameras do it: RFC 6184 and RFC 7798."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

START = b"\0\0\0\1"
KIND = 96
SOURCE = 0xC0FFEE


def rtp(
    payload: bytes, number: int, ticks: int, *, marker: bool = False, source: int = SOURCE, kind: int = KIND
) -> bytes:
    head = struct.pack(">BBHII", 0x80, kind | marker << 7, number % (1 << 16), ticks % (1 << 32), source)
    return head + payload


def fragments(unit: bytes, size: int, *, hevc: bool = False) -> Iterator[bytes]:
    """Of one unit, each of at most `size` bytes of it."""
    head = 2 if hevc else 1
    kind = unit[0] >> 1 & 0x3F if hevc else unit[0] & 0x1F
    indicator = bytes((unit[0] & 0x81 | 49 << 1, unit[1])) if hevc else bytes((unit[0] & 0xE0 | 28,))
    pieces = [unit[at : at + size] for at in range(head, len(unit), size)]
    for at, piece in enumerate(pieces):
        mark = (at == 0) << 7 | (at == len(pieces) - 1) << 6
        yield indicator + bytes((mark | kind,)) + piece


def aggregate(units: Iterable[bytes], *, hevc: bool = False) -> bytes:
    head = bytes((48 << 1, 1)) if hevc else bytes((24,))
    return head + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def payloads(units: list[bytes], size: int, *, hevc: bool = False) -> Iterator[bytes]:
    """Small ones together, large ones in pieces."""
    small: list[bytes] = []
    for unit in units:
        if len(unit) <= size // 4:
            small.append(unit)
            continue
        if small:
            yield aggregate(small, hevc=hevc)
            small = []
        yield from [unit] if len(unit) <= size else fragments(unit, size, hevc=hevc)
    if small:
        yield aggregate(small, hevc=hevc)


def packets(
    pictures: Iterable[list[bytes]], *, size: int = 1200, hevc: bool = False, first: int = 0, step: int = 9000
) -> Iterator[bytes]:
    """Each picture as its units; the last packet of each is marked. `step` ticks from one to the next."""
    number = first
    for at, units in enumerate(pictures):
        parts = list(payloads(units, size, hevc=hevc))
        for part, payload in enumerate(parts):
            yield rtp(payload, number, at * step, marker=part == len(parts) - 1)
            number += 1


def annex_b(units: Iterable[bytes]) -> bytes:
    return b"".join(START + unit for unit in units)


def units_of(data: bytes) -> list[bytes]:
    """Of a picture in Annex B."""
    return [unit.rstrip(b"\0") for unit in data.replace(START, START[1:]).split(START[1:]) if unit]
