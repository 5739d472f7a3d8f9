"""Requests that the control process answers, passed on to it by whichever worker got them."""

from __future__ import annotations

from collections.abc import Iterable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from contracts.errors import FoothillError

_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
    | {"date", "server"}
)
_PIECE_BYTES = 1 << 16


class Relay:
    """`path` is that of the control process's socket. Answers are passed on as they come."""

    def __init__(self, path: str) -> None:
        connector = aiohttp.UnixConnector(path)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def close(self) -> None:
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A GET. Raises FoothillError `unavailable` where the control process is away."""
        headers = _end_to_end(request.headers.items())
        try:
            async with self._session.get(f"http://router{request.rel_url.raw_path_qs}", headers=headers) as answer:
                response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers.items()))
                await response.prepare(request)
                async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                    await response.write(piece)
                await response.write_eof()
                return response
        except aiohttp.ClientConnectorError as error:
            raise FoothillError("unavailable", "The control process of this router is away. Retry.") from error


def _end_to_end(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP)
