"""A caller that writes the bytes of its requests itself, and reads answers one by one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from multidict import CIMultiDict

PATIENCE_S = 30


class Told(NamedTuple):
    status: int
    headers: CIMultiDict[str]
    body: bytes


class RawCaller:
    """One connection. What a test waits for longer than PATIENCE_S does not come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str, trust: ssl.SSLContext | None = None, limit: int = 1 << 16) -> RawCaller:
        """With TLS where there is a context to trust. Of what nobody reads yet it takes twice the `limit`, in bytes."""
        return cls(*await asyncio.open_connection("127.0.0.1", urlsplit(url).port, ssl=trust, limit=limit))

    async def send(self, data: bytes, *, pieces: int = 0) -> None:
        """In pieces of so many bytes, each given time to arrive by itself; 0: at once."""
        for at in range(0, len(data), pieces or len(data) or 1):
            self.writer.write(data[at : at + (pieces or len(data))])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def head(self) -> Told:
        """The next answer but for its body."""
        lines = (await self._in_time(self._reader.readuntil(b"\r\n\r\n"))).decode().split("\r\n")[:-2]
        named: CIMultiDict[str] = CIMultiDict()
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            named.add(name, value)
        return Told(int(lines[0].split(" ")[1]), named, b"")

    async def answer(self, method: str = "POST") -> Told:
        told = await self.head()
        length = 0 if method == "HEAD" else int(told.headers["Content-Length"])
        return told._replace(body=await self._in_time(self._reader.readexactly(length)))

    async def exactly(self, count: int) -> bytes:
        return await self._in_time(self._reader.readexactly(count))

    async def rest(self) -> bytes:
        """All that still comes before the server closes."""
        try:
            return await self._in_time(self._reader.read())
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        self.writer.close()

    def vanish(self) -> None:
        """As when a cable is cut and the kernel finds out."""
        self.writer.transport.abort()

    async def _in_time(self, reading: Awaitable[bytes]) -> bytes:
        return await asyncio.wait_for(reading, PATIENCE_S)


def post(target: str, body: bytes = b"", *, method: str = "POST", chunked: bool = False, **named: str) -> bytes:
    """A request; names of headers with `_` for `-`."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    sent = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" if chunked else body
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{lines}{how}\r\n\r\n".encode() + sent


async def until(true: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not true():  # noqa: ASYNC110 - the server has no event for what a test waits for
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), PATIENCE_S)
