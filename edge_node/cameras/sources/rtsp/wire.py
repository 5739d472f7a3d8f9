"""The connection: text and packets of media come over it, one after the other."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from edge_node.cameras.sources.rtsp.words import MOST_HEAD_BYTES, NO_RTSP, Said, head_of
from edge_node.cameras.sources.trouble import Trouble

_PACKET = 0x24
"""A dollar sign, a channel and two bytes of length are before each packet (RFC 2326, 10.12)."""
_FRAME = struct.Struct(">xBH")
_END = b"\r\n\r\n"
_READ_BYTES = 256 << 10


class Piece(NamedTuple):
    """A packet of media, as it came on one of the two `channel`s that were agreed upon."""

    channel: int
    data: bytes


class Wire:
    """Blocks for `timeout_s`, at most, at a time. Raises OSError."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.socket = socket.create_connection((host, port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._came = bytearray()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, timeout_s: float) -> bool:
        """Whether something came. Raises Trouble at the end, and OSError."""
        self.socket.settimeout(max(0.001, timeout_s))
        try:
            came = self.socket.recv(_READ_BYTES)
        except TimeoutError:
            return False
        if not came:
            raise Trouble("lost", "it closed the connection")
        self._came += came
        return True

    def take(self) -> Iterator[Piece | Said]:
        """What is complete. Raises Trouble where it is no RTSP."""
        came, at = self._came, 0
        try:
            while at < len(came):
                if came[at] in _BETWEEN:
                    at += 1
                    continue
                end = self._packet(at) if came[at] == _PACKET else self._text(at)
                if end is None:
                    return
                piece, at = end
                yield piece
        finally:
            del came[:at]

    def close(self) -> None:
        self.socket.close()

    def _packet(self, at: int) -> tuple[Piece, int] | None:
        begin = at + _FRAME.size
        if len(self._came) < begin:
            return None
        channel, size = _FRAME.unpack_from(self._came, at)
        if len(self._came) < begin + size:
            return None
        return Piece(channel, bytes(self._came[begin : begin + size])), begin + size

    def _text(self, at: int) -> tuple[Said, int] | None:
        end = self._came.find(_END, at, at + MOST_HEAD_BYTES)
        if end < 0:
            if len(self._came) - at >= MOST_HEAD_BYTES or self._came[at] not in _FIRST:
                raise Trouble("lost", NO_RTSP)
            return None
        said, length = head_of(bytes(self._came[at:end]))
        begin = end + len(_END)
        if len(self._came) < begin + length:
            return None
        return said._replace(body=bytes(self._came[begin : begin + length])), begin + length


_FIRST = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Of a line of RTSP."""
_BETWEEN = frozenset(b"\r\n")
"""Some leave empty lines."""
