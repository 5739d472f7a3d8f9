"""Stories of the data plane as handlers of aiohttp's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from contracts.deadlines import Deadline
from runtime.links.access.grants import GRANT, Grant
from runtime.links.http.bodies import read_body, store_body
from runtime.links.http.errors import request_id_of
from runtime.links.http.exchanges import Body, Clock, Outgoing, Story
from runtime.links.http.spool import Spool


class Through:
    """A request that came through aiohttp: `runtime.links.http.exchanges.Incoming`."""

    __slots__ = ("_request", "grant", "headers", "method", "params", "remote", "request_id", "target", "waited_s")

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.method = request.method
        self.target = str(request.rel_url)
        self.headers = request.headers
        self.params = request.match_info
        self.request_id = request_id_of(request)
        self.remote = request.remote or ""
        self.grant: Grant | None = request.get(GRANT)
        self.waited_s = 0.0

    def expect(self, count: int) -> tuple[bytes, int]:
        return b"", 0

    async def read(self, limit: int, deadline: Deadline, clock: Clock) -> bytes:
        return await read_body(self._request, limit, deadline, clock)

    async def store(self, limit: int, above: int, deadline: Deadline, clock: Clock) -> Body | Spool:
        declared = self._request.content_length
        if declared is not None and declared <= above:
            return await self.read(limit, deadline, clock)
        return await store_body(self._request, limit, above, deadline, clock)


def handler(story: Story) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer = await story(Through(request))
        if answer.spool is not None:
            return await _pour(request, answer, answer.spool)
        return web.Response(status=answer.status, headers=answer.all_headers(), body=answer.body)

    return handle


async def _pour(request: web.Request, answer: Outgoing, body: Spool) -> web.StreamResponse:
    """As fast as the caller takes it."""
    response = web.StreamResponse(status=answer.status, headers=answer.all_headers())
    response.content_length = len(body)
    await response.prepare(request)
    async for piece in body.pieces():
        await response.write(piece)
    await response.write_eof()
    return response
