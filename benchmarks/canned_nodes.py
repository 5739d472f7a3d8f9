"""Nodes that always answer the same, as cheaply as asyncio can: `python -m benchmarks.canned_nodes COUNT READY_FILE`.

Their answer is that of an edge node to a router: all of its headers, and a prediction. As a real node's it comes once
the whole request is there; a proxy that is answered before it has sent everything does other work. The URLs are told
one a line.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import AsyncExitStack
from email.utils import formatdate
from functools import partial
from typing import cast

import msgspec

from benchmarks.told import tell_ready
from contracts import headers
from contracts.predictions import Classification, Scored
from runtime.links.http.serve import run_loop, stop_on_signals

MODEL = "canned"
_BACKLOG = 1024
_BUFFER_BYTES = 1 << 20
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_REQUEST_ID = "5f0c2a9be1d34c7f8a60b1d2e3f4a5b6"
_CONFIDENCE = 0.9469059472707785
_SCORES = {"6": 0.9227897913787783, "8": 0.05872061987619762, "2": 0.008231769735913502, "4": 0.005991259921630404}


def name_of(number: int) -> str:
    """The node's own, counted from 0."""
    return f"edge-{number}"


def prediction_of(node: str) -> Classification:
    best = tuple(Scored(label, score) for label, score in _SCORES.items())
    return Classification(
        model=MODEL,
        bundle=f"{MODEL}-edge@1",
        confidence=_CONFIDENCE,
        tier="edge",
        node=node,
        reason="unsettled",
        request_id=_REQUEST_ID,
        label=best[0].label,
        score=best[0].score,
        top=best,
    )


def answer_of(node: str) -> bytes:
    """All bytes of what it answers."""
    body = msgspec.json.encode(prediction_of(node))
    told = {**_told_by(node), "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return b"HTTP/1.1 200 OK\r\n" + lines.encode() + b"\r\n" + body


def _told_by(node: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        headers.TIER: "edge",
        headers.NODE: node,
        headers.REASON: "unsettled",
        headers.CERTIFIED: "false",
        headers.DEGRADED: "false",
        headers.MODEL: f"{MODEL}-edge@1",
        headers.DIGEST: "sha256:" + "a6" * 32,
        headers.STRATUM: "14" * 16,
        headers.REQUEST_ID: _REQUEST_ID,
        headers.SERVER_TIMING: "decode;dur=0.021, queue;dur=0.087, infer;dur=0.062, encode;dur=0.010, total;dur=0.184",
        headers.CONFIDENCE: repr(_CONFIDENCE),
        headers.ANSWER: "6",
        headers.LOAD: "in_flight=1;queue_ms=0.009;service_ms=0.062",
        "Date": formatdate(usegmt=True),
    }


class Connection(asyncio.BufferedProtocol):
    """Counts one request down, then answers it. `buffer` may be everybody's. A request whose end cannot be known, and
    one behind another that is not answered yet, ends the connection."""

    def __init__(self, answer: bytes, buffer: bytearray) -> None:
        self._answer = answer
        self._buffer = buffer
        self._held = b""
        self._missing = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
        elif not self._begin(nbytes):
            return
        assert self._transport is not None
        if not self._missing:
            self._transport.write(self._answer)
        elif self._missing < 0:
            self._transport.close()

    def _begin(self, came: int) -> bool:
        """Whether a head has come; after it so many bytes are missing, too many where there are too many of them."""
        data: bytes | bytearray = self._buffer
        if self._held:
            data = self._held + data[:came]
            came = len(data)
        end = data.find(_HEAD_END, 0, came)
        if end < 0:
            self._held = bytes(data[:came])
            return False
        self._held = b""
        length = _LENGTH.search(data, 0, end + 2)
        self._missing = end + len(_HEAD_END) + (int(length[1]) if length is not None else 0) - came
        return True


async def run(count: str, ready: str) -> None:
    stopping = stop_on_signals()
    loop, buffer = asyncio.get_running_loop(), bytearray(_BUFFER_BYTES)
    async with AsyncExitStack() as closing:
        urls = []
        for number in range(int(count)):
            node = partial(Connection, answer_of(name_of(number)), buffer)
            server = await loop.create_server(node, "127.0.0.1", 0, backlog=_BACKLOG)
            await closing.enter_async_context(server)
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        tell_ready(ready, "\n".join(urls))
        await stopping.wait()


if __name__ == "__main__":
    run_loop(run(*sys.argv[1:3]))
