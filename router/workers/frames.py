"""What the control process of a router and its workers tell each other: frames of MessagePack over a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from contracts.headers import Terms
from contracts.messages import Audit, Certificate, Identity, Load, Reported, Status
from router.config import Config
from router.health import Event
from router.workers.counts import Family
from runtime.links.access.grants import Allowance
from runtime.links.http.upstream import Request

MAX_FRAME_BYTES = 256 << 20
MAX_WAITING_BYTES = 64 << 20
"""Of frames that the other side does not take: then it is stuck."""
_LENGTH = struct.Struct(">I")


class Setup(msgspec.Struct, frozen=True, tag=True):
    """The first frame: which of `workers` it is, counted from 1, and where it listens. `control` is the path of the
    socket on which the control process answers HTTP."""

    config: Config
    hop_key: bytes
    number: int
    workers: int
    port: int
    control: str


class Told(msgspec.Struct, frozen=True, tag=True):
    """What the fleet says: verified, in order. `broker` is None without a broker."""

    broker: bool | None
    identities: tuple[Identity, ...] = ()
    statuses: tuple[Status, ...] = ()
    reports: tuple[Reported, ...] = ()
    loads: tuple[Load, ...] = ()
    certificates: tuple[Certificate, ...] = ()


class RoundTrips(msgspec.Struct, frozen=True, tag=True):
    """What a caller at this address has measured, in ms by node."""

    address: str
    measured_ms: dict[str, float]


class Probed(msgspec.Struct, frozen=True, tag=True):
    """What a probe of a static node has found."""

    node: str
    event: Event
    rtt_ms: float | None


class Count(msgspec.Struct, frozen=True, tag=True):
    """Asks for the metrics; they come as `Counted` with the same number."""

    question: int


class Leased(msgspec.Struct, frozen=True, tag=True):
    """So many requests may be taken; one more in `wait_s`."""

    question: int
    granted: int
    wait_s: float


class Taken(msgspec.Struct, frozen=True, tag=True):
    """Whether an escalation may be, or a late answer will be here."""

    question: int
    may: bool


class Kept(msgspec.Struct, frozen=True, tag=True):
    """A late answer of this worker's does not wait any more, of a request with a body of so many bytes."""

    body_bytes: int


Down = Setup | Told | Probed | RoundTrips | Count | Leased | Taken | Kept
"""From the control process to a worker."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """It listens."""

    url: str


class Alive(msgspec.Struct, frozen=True, tag=True):
    """A sign of life from the event loop that serves."""


class Audited(msgspec.Struct, frozen=True, tag=True):
    """To be published."""

    audit: Audit


class Promise(msgspec.Struct, frozen=True, tag=True):
    """Asks for the cloud's answer to this to be here later; answered by `Taken` with the same number."""

    question: int
    request: Request
    terms: Terms
    model: str
    tenant: str


class Lease(msgspec.Struct, frozen=True, tag=True):
    """Asks for `count` requests of the tenant `name`, who may send `per_s` a second to the whole router; answered by
    `Leased` with the same number."""

    question: int
    name: str
    per_s: float
    count: int


class Take(msgspec.Struct, frozen=True, tag=True):
    """Asks for one escalation of a tenant's; answered by `Taken` with the same number."""

    question: int
    tenant: str
    allowance: Allowance
    cost: float


class Spend(msgspec.Struct, frozen=True, tag=True):
    """What a tenant has cost."""

    tenant: str
    allowance: Allowance
    cost: float


class Counted(msgspec.Struct, frozen=True, tag=True):
    question: int
    families: tuple[Family, ...]


Up = Ready | Alive | Audited | Promise | RoundTrips | Lease | Take | Spend | Counted
"""From a worker to the control process."""

Out = TypeVar("Out")
In = TypeVar("In")


class Broken(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """The other side is gone, or does not take what it is told."""


class Channel(Generic[Out, In]):
    """One side's end of a pair of sockets. What one side sends comes in order, until one of them is gone."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.msgpack.Decoder[In]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = decoder

    def send(self, message: Out) -> None:
        """Never waits. What is sent to a side that is gone is lost, and `receive` says so."""
        self.send_encoded(self._encoder.encode(message))

    def send_encoded(self, payload: bytes) -> None:
        if self._writer.is_closing():
            return
        waiting = self._writer.transport.get_write_buffer_size()
        if waiting + len(payload) > MAX_WAITING_BYTES and waiting:
            self._writer.transport.abort()
            return
        self._writer.write(_LENGTH.pack(len(payload)))
        self._writer.write(payload)

    async def receive(self) -> In:
        """The next one. Raises Broken where none comes any more."""
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if size > MAX_FRAME_BYTES:
                raise Broken(f"a frame of {size} bytes was announced")
            return self._decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Broken("its end of the socket is closed") from error
        except msgspec.DecodeError as error:
            raise Broken(f"what it says cannot be read: {error}") from error

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def to_worker(end: socket.socket) -> Channel[Down, Up]:
    """The control process's end."""
    reader, writer = await asyncio.open_unix_connection(sock=end)
    return Channel(reader, writer, msgspec.msgpack.Decoder(Up))


async def to_control(end: socket.socket) -> Channel[Up, Down]:
    """A worker's end."""
    reader, writer = await asyncio.open_unix_connection(sock=end)
    return Channel(reader, writer, msgspec.msgpack.Decoder(Down))
