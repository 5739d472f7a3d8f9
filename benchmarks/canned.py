"""A process that answers every request with the same small body: `python -m benchmarks.canned READY_FILE`.

Nothing that really serves can be faster, so that what the load reaches here is the load's own limit.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

from benchmarks.told import tell_ready
from runtime.links.http.serve import run_loop, stop_on_signals

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class _Canned(asyncio.Protocol):
    """Reads heads whole, as the load sends them, and counts bodies down."""

    def __init__(self) -> None:
        self._missing = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        if self._missing <= 0:
            end = data.index(b"\r\n\r\n")
            length = _LENGTH.search(data, 0, end + 2)
            self._missing = end + 4 + (int(length.group(1)) if length else 0)
        self._missing -= len(data)
        if self._missing <= 0 and self._transport is not None:
            self._transport.write(_ANSWER)


async def run(ready: str) -> None:
    stopping = stop_on_signals()
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", 0)
    async with server:
        tell_ready(ready, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await stopping.wait()


if __name__ == "__main__":
    run_loop(run(sys.argv[1]))
