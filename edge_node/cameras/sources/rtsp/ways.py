"""How packets of media come: between the words, over one connection, or by UDP."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from edge_node.cameras.sources.rtsp.wire import Piece, Wire
from edge_node.cameras.sources.rtsp.words import Said
from edge_node.cameras.sources.trouble import Trouble

_MOST_DATAGRAM_BYTES = 1 << 16
_KERNEL_BYTES = 2 << 20
"""A keyframe comes all at once."""
_MOST_AT_ONCE = 256
_PORTS_TRIED = 50
_OTHER_WAY = "it does not send by {}: set transport to {}"

MEDIA, REPORTS = 0, 1
"""The channels of a Piece."""


class Way(Protocol):
    """`asked` is the header `Transport` of a SETUP, `patience`: for how many packets a missing one is waited for."""

    asked: str
    patience: int

    def agree(self, transport: str) -> None:
        """The camera's own header `Transport`. Raises Trouble."""
        ...

    def receive(self, timeout_s: float) -> Iterator[Piece | Said]:
        """What comes within that time, of media and of words. Raises Trouble and OSError."""
        ...

    def report(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Interleaved:
    asked = f"RTP/AVP/TCP;unicast;interleaved={MEDIA}-{REPORTS}"
    patience = 0

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._channels = {MEDIA: MEDIA, REPORTS: REPORTS}

    def agree(self, transport: str) -> None:
        if "RTP/AVP/TCP" not in transport.upper():
            raise Trouble("lost", _OTHER_WAY.format("TCP", "udp"))
        told = re.search(r"interleaved=(\d{1,3})(?:-(\d{1,3}))?", transport)
        if told:
            media = int(told[1])
            self._channels = {media: MEDIA, int(told[2] or media + 1): REPORTS}

    def receive(self, timeout_s: float) -> Iterator[Piece | Said]:
        if not self._wire.receive(timeout_s):
            return
        for came in self._wire.take():
            if isinstance(came, Said):
                yield came
            elif came.channel in self._channels:
                yield came._replace(channel=self._channels[came.channel])

    def report(self, data: bytes) -> None:
        channel = next(own for own, what in self._channels.items() if what == REPORTS)
        self._wire.send(bytes((0x24, channel)) + len(data).to_bytes(2, "big") + data)

    def close(self) -> None:
        """The connection is not this one's."""


class Datagrams:
    """Two ports, an even one and the next (RFC 3550, 11). What others send to them is not listened to."""

    patience = 32

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._camera: str = wire.socket.getpeername()[0]
        self._pair = _pair(wire.socket.family, wire.socket.getsockname()[0])
        port = self._pair[0].getsockname()[1]
        self.asked = f"RTP/AVP;unicast;client_port={port}-{port + 1}"
        self._reports_to: tuple[str, int] | None = None

    def agree(self, transport: str) -> None:
        if "RTP/AVP/TCP" in transport.upper():
            raise Trouble("lost", _OTHER_WAY.format("UDP", "tcp"))
        told = re.search(r"server_port=(\d{1,5})(?:-(\d{1,5}))?", transport)
        if told is None:
            return
        media = int(told[1])
        self._reports_to = (self._camera, int(told[2] or media + 1))
        with suppress(OSError, OverflowError):  # so that a firewall between us knows who may answer
            self._pair[0].sendto(b"\x80\0\0\0\0\0\0\0\0\0\0\0", (self._camera, media))

    def receive(self, timeout_s: float) -> Iterator[Piece | Said]:
        ready, _, _ = select.select((*self._pair, self._wire.socket), (), (), max(0.0, timeout_s))
        for channel, own in enumerate(self._pair):
            if own in ready:
                yield from self._all_of(own, channel)
        if self._wire.socket in ready and self._wire.receive(0.0):
            yield from (came for came in self._wire.take() if isinstance(came, Said))

    def report(self, data: bytes) -> None:
        if self._reports_to is not None:
            with suppress(OSError, OverflowError):
                self._pair[1].sendto(data, self._reports_to)

    def close(self) -> None:
        for own in self._pair:
            own.close()

    def _all_of(self, own: socket.socket, channel: int) -> Iterator[Piece]:
        for _ in range(_MOST_AT_ONCE):
            try:
                data, sender = own.recvfrom(_MOST_DATAGRAM_BYTES)
            except (BlockingIOError, ConnectionError):
                return
            if sender[0] == self._camera:
                yield Piece(channel, data)


def _pair(family: int, address: str) -> tuple[socket.socket, socket.socket]:
    for _ in range(_PORTS_TRIED):
        first = _bound(family, address, 0)
        port = first.getsockname()[1]
        try:
            if port % 2 == 0:
                return first, _bound(family, address, port + 1)
        except OSError:
            pass
        first.close()
    raise Trouble("lost", "no two ports in a row are free here for UDP: set transport to tcp")


def _bound(family: int, address: str, port: int) -> socket.socket:
    own = socket.socket(family, socket.SOCK_DGRAM)
    try:
        own.setblocking(False)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        own.bind((address, port))
    except OSError:
        own.close()
        raise
    return own
