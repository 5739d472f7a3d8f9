"""The load: connections that each send one request over and over, closed loop, as cheaply as asyncio can.

A client that costs as much as the server would measure itself: this one renders its request once, reads of an answer
only the status and the length, and its own CPU time is part of every figure.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

_HEAD_END = b"\r\n\r\n"
_STATUS, _OK = slice(9, 12), 200
_ID_BYTES = 16
_IDS = itertools.count()
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class LoadError(Exception):
    """An answer that is no success: the figures would be those of failing. Tells what came back."""


class Target(NamedTuple):
    """Where to connect, and the whole request as it goes over the wire; with `id_at`, an id lies there that is another
    one in each request."""

    host: str
    port: int
    request: bytes
    id_at: int = 0


class Load(NamedTuple):
    """What one run came to. `latencies_ms` has one entry a request, first byte sent to last received."""

    wall_s: float
    client_cpu_s: float
    latencies_ms: npt.NDArray[np.float64]


def post(url: str, path: str, headers: Mapping[str, str], body: bytes) -> Target:
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"{url!r} names no host and port.")
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return Target(parts.hostname, parts.port, "\r\n".join(lines).encode() + _HEAD_END + body)


def with_ids(target: Target) -> Target:
    """The same, but for a `Foothill-Request-Id` in each request."""
    line = b"\r\nFoothill-Request-Id: "
    at = target.request.index(b"\r\n")
    request = target.request[:at] + line + bytes(_ID_BYTES) + target.request[at:]
    return target._replace(request=request, id_at=at + len(line))


async def drive(target: Target, *, concurrency: int, seconds: float, poll: bool = False) -> Load:
    """Keeps `concurrency` requests under way for `seconds`, then waits for the last answers.

    With `poll` this process never sleeps, and takes all of its core: to wake one that sleeps costs the server, whose
    core interrupts the other one, as much as a third of a small answer on a virtual machine.
    Raises LoadError for the first answer that is not a 200.
    """
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Connection(target), target.host, target.port))[1]
        for _ in range(concurrency)
    ]
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    polling = _Polling(loop)
    if poll:
        polling.start()
    try:
        await asyncio.gather(*(connection.run(started_s + seconds) for connection in connections))
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    finally:
        polling.stop()
        for connection in connections:
            connection.close()
    latencies_ms = np.concatenate([connection.latencies_ms for connection in connections])
    return Load(wall_s, cpu_s, latencies_ms)


class _Polling:
    """Something that the event loop always has to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._on = False

    def start(self) -> None:
        self._on = True
        self._again()

    def stop(self) -> None:
        self._on = False

    def _again(self) -> None:
        if self._on:
            self._loop.call_soon(self._again)


class Caller(asyncio.Protocol):
    """One keep-alive connection with one request under way; reads of its answer the status and the length."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self._received = b""

    def answered(self, status: int, now_s: float) -> None:
        """The last byte has come."""
        raise NotImplementedError

    def failed(self, what: str) -> None:
        """Nothing will come any more."""
        raise NotImplementedError

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head_bytes = self._received.find(_HEAD_END) + len(_HEAD_END)
        if head_bytes < len(_HEAD_END):
            return
        length = _LENGTH.search(self._received, 0, head_bytes)
        if length is None:
            self.failed(f"an answer of no known length: {self._received[:2000].decode('latin-1')}")
        elif len(self._received) >= head_bytes + int(length.group(1)):
            status, self._received = int(self._received[_STATUS]), b""
            self.answered(status, time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        self.failed(f"the connection was lost: {error or 'closed by the server'}")


class _Connection(Caller):
    """Sends the same request over and over, but for its id."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._request, at = target.request, target.id_at
        self._around_id = (self._request[:at], self._request[at + _ID_BYTES :]) if at else None
        self._sent_s = 0.0
        self._until_s = 0.0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_ms: list[float] = []

    async def run(self, until_s: float) -> None:
        self._until_s = until_s
        self._send()
        await self._ended

    def answered(self, status: int, now_s: float) -> None:
        self.latencies_ms.append((now_s - self._sent_s) * 1000.0)
        if status != _OK:
            self.failed(f"an answer that is no 200, but a {status}")
        elif now_s < self._until_s:
            self._send()
        elif not self._ended.done():
            self._ended.set_result(None)

    def failed(self, what: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(LoadError(what))

    def _send(self) -> None:
        if self.transport is None or self.transport.is_closing():
            self.failed("the connection was lost")
            return
        request = self._request
        if self._around_id is not None:
            before, after = self._around_id
            request = b"%b%016x%b" % (before, next(_IDS), after)
        self._sent_s = time.perf_counter()
        self.transport.write(request)
