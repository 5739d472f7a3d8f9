"""Nodes that misbehave when they are told to: real sockets, the words of an edge node, and every fault that a router
must live through. Who wants one in a process of its own: `python -m benchmarks.faulty_nodes NAME PORT READY_FILE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import sys
import time
from typing import Literal, NamedTuple, cast

from benchmarks.told import tell_ready
from contracts import headers
from runtime.links.access.hop import verify_hop
from runtime.links.http.serve import run_loop, stop_on_signals

Behaviour = Literal["well", "silent", "failing", "resetting"]
"""`silent` takes requests and never answers, `failing` says 500 at once, `resetting` resets the connection instead."""

MODEL = "digits"
HOP_KEY = b"h" * 32
STRATUM = "0" * 32
_HOST = "127.0.0.1"
_MEMORY = 0.9
"""Of the mean that a node tells, as `runtime/serving/models/hosting.py` keeps it."""
_RESET = struct.pack("ii", 1, 0)
_HEAD_END = b"\r\n\r\n"
_FIELD = re.compile(r"\r\n([A-Za-z0-9-]+): *([^\r]*)")
_DROPPED_AFTER_S = 0.05
_REASONS = {200: "OK", 500: "Internal Server Error", 503: "Service Unavailable"}


class Answered(NamedTuple):
    asked_s: float
    at_s: float


class FaultyNode:
    """One upstream at one port, which stays its own while nobody listens there.

    Requests run one after the other, `service_ms` each, and their answers take `far_ms` to come; `slow` is how many
    times as long requests take. Steer it by `does` and `slow`, `kill` and `start`, `drop` and `start`, and `forget`.
    With `sheds` it refuses what it could not answer in time, as real nodes do. `asked_s` tells when it was asked, on
    the monotonic clock, `answered` when what it answered was asked, and answered. Without `confidence` nobody doubts
    it.
    """

    def __init__(
        self,
        name: str,
        *,
        port: int = 0,
        service_ms: float = 2.0,
        far_ms: float = 0.0,
        tier: str = "edge",
        confidence: float | None = None,
    ) -> None:
        self.name = name
        self.tier = tier
        self.service_ms = service_ms
        self.far_ms = far_ms
        self.confidence = confidence
        self.sheds = False
        self.does: Behaviour = "well"
        self.slow = 1.0
        self.in_flight = 0
        self.asked_s: list[float] = []
        self.answered: list[Answered] = []
        self.strangers = 0
        """Requests whose mark was not believed."""
        self._free_s = 0.0
        self._queue_ms = self._told_ms = 0.0
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._held = _bound(port)
        self._dropping: list[socket.socket] = []
        self.port = int(self._held.getsockname()[1])
        self.url = f"http://{_HOST}:{self.port}"

    async def start(self) -> None:
        """It listens, and is well."""
        self._stop_dropping()
        self.does, self.slow = "well", 1.0
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Connection(self), _HOST, self.port, backlog=1024)

    def kill(self) -> None:
        """As its process was: every connection is reset, and so is who connects."""
        self._close()
        for connection in [*self._connections]:
            connection.reset()

    async def drop(self) -> None:
        """As if its machine was off: connections hear nothing more, and who connects gets no answer at all."""
        self.forget()
        self._close()
        self._dropping = await _unanswering(self.port)

    def forget(self) -> None:
        """Connections that are open now hear nothing more; new ones do. So it is behind a NAT that lost its table."""
        for connection in self._connections:
            connection.forgotten = True

    def close(self) -> None:
        self.kill()
        self._stop_dropping()
        self._held.close()

    def ask(self, connection: _Connection, sent: dict[str, str]) -> None:
        now_s = time.monotonic()
        self.asked_s.append(now_s)
        if connection.forgotten or self.does == "silent":
            return
        if self.does == "resetting":
            connection.reset()
        elif self.does == "failing":
            connection.answer(self._refusal(sent, 500, "internal"))
        elif self.sheds and self._late(sent, now_s):
            connection.answer(self._refusal(sent, 503, "overloaded"))
        else:
            self._serve(connection, sent, now_s)

    def _late(self, sent: dict[str, str], now_s: float) -> bool:
        left_ms = float(sent.get(headers.DEADLINE_MS.lower(), "inf"))
        return max(0.0, self._free_s - now_s) * 1000.0 + self.service_ms * self.slow > left_ms

    def _serve(self, connection: _Connection, sent: dict[str, str], now_s: float) -> None:
        service_ms = self.service_ms * self.slow
        starts_s = max(now_s, self._free_s)
        self._free_s = starts_s + service_ms / 1000.0
        self.in_flight += 1
        asyncio.get_running_loop().call_at(self._free_s, self._end, connection, sent, now_s, service_ms)

    def _end(self, connection: _Connection, sent: dict[str, str], asked_s: float, service_ms: float) -> None:
        waits_ms = max(0.0, (time.monotonic() - asked_s) * 1000.0 - service_ms)
        self._queue_ms += (1 - _MEMORY) * (waits_ms - self._queue_ms)
        self._told_ms += (1 - _MEMORY) * (service_ms - self._told_ms)
        answer = self._answer(sent, waits_ms, service_ms)
        self.in_flight -= 1
        asyncio.get_running_loop().call_later(self.far_ms / 1000.0, self._arrive, connection, answer, asked_s)

    def _arrive(self, connection: _Connection, answer: bytes, asked_s: float) -> None:
        if connection.answer(answer):
            self.answered.append(Answered(asked_s, time.monotonic()))

    def _answer(self, sent: dict[str, str], waits_ms: float, service_ms: float) -> bytes:
        request_id = sent.get(headers.REQUEST_ID.lower(), "")
        known = verify_hop(HOP_KEY, sent.get(headers.HOP.lower()), request_id, time.time()) == "router"
        self.strangers += not known
        told = {
            "Content-Type": "text/plain",
            headers.REQUEST_ID: request_id,
            headers.TIER: self.tier,
            headers.NODE: self.name,
            headers.REASON: "unsettled" if known else "confident",
            headers.MODEL: f"{MODEL}-{self.tier}@1",
            headers.STRATUM: STRATUM,
            headers.CERTIFIED: "false",
            headers.SERVER_TIMING: f"queue;dur={waits_ms:.3f}, infer;dur={service_ms:.3f}, "
            f"total;dur={waits_ms + service_ms:.3f}",
        }
        if self.confidence is not None:
            told[headers.CONFIDENCE] = repr(self.confidence)
        if known:
            told[headers.ANSWER] = "3"
            told[headers.LOAD] = (
                f"in_flight={self.in_flight};queue_ms={self._queue_ms:.3f};service_ms={self._told_ms:.3f}"
            )
        return _written(200, told, b"3")

    def _refusal(self, sent: dict[str, str], status: int, code: str) -> bytes:
        request_id = sent.get(headers.REQUEST_ID.lower(), "")
        told = {"Content-Type": "application/json", headers.REQUEST_ID: request_id, "Retry-After": "1"}
        body = f'{{"code":"{code}","message":"no","source":"{self.name}","retryable":true,"request_id":"{request_id}"}}'
        return _written(status, told, body.encode())

    def joined(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _stop_dropping(self) -> None:
        for each in self._dropping:
            each.close()
        self._dropping = []


class _Connection(asyncio.Protocol):
    """One request after the other. `forgotten`: nothing that comes is answered any more, and nothing ends it."""

    def __init__(self, node: FaultyNode) -> None:
        self._node = node
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self.forgotten = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._node.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._node.left(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(_HEAD_END)
        if end < 0:
            return
        sent = {name.lower(): value for name, value in _FIELD.findall(self._data[:end].decode("latin-1"))}
        whole = end + len(_HEAD_END) + int(sent.get("content-length", "0"))
        if len(self._data) >= whole:
            self._data = self._data[whole:]
            self._node.ask(self, sent)

    def answer(self, written: bytes) -> bool:
        """Whether anybody may hear it."""
        if self._transport is None or self.forgotten:
            return False
        self._transport.write(written)
        return True

    def reset(self) -> None:
        if self._transport is not None:
            opened = self._transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()


def _written(status: int, told: dict[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _bound(port: int) -> socket.socket:
    """Who connects to it is refused, until somebody listens there beside it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((_HOST, port))
    return made


async def _unanswering(port: int) -> list[socket.socket]:
    """A port that no connection comes through to, as where packets are dropped: Linux answers no SYN while the line
    of those who were not accepted is full."""
    listening = _bound(port)
    listening.listen(0)
    found, loop = [listening], asyncio.get_running_loop()
    while True:
        waiting = socket.socket()
        waiting.setblocking(False)
        found.append(waiting)
        try:
            await asyncio.wait_for(loop.sock_connect(waiting, (_HOST, port)), _DROPPED_AFTER_S)
        except asyncio.TimeoutError:
            return found


async def run(name: str, port: str, ready: str) -> None:
    stopping = stop_on_signals()
    with contextlib.closing(FaultyNode(name, port=int(port))) as node:
        await node.start()
        tell_ready(ready, node.url)
        await stopping.wait()


if __name__ == "__main__":
    run_loop(run(*sys.argv[1:4]))
