"""Scripted HTTP servers on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from contracts import headers
from contracts.errors import FoothillError
from contracts.leases import Lease, LeasedNode, RouteRequest
from contracts.predictions import Classification, Scored

Handler = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


class Scripted:
    """One server: `handler` answers every request; `seen` keeps (path, headers, body) of each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        self.handler = handler
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: set[int] = set()
        self._loop = loop
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Closes the listening socket and every connection; the port stays the same for a later start."""
        self._call(self._stop())

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.path, dict(request.headers), body))
        self.connections.add(id(request.transport))
        return await self.handler(request, body)

    def _call(self, coroutine: Awaitable[None]) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop).result(10)


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable


def predicts(tier: str = "edge", node: str = "fra") -> Handler:
    async def handler(request: web.Request, body: bytes) -> web.StreamResponse:
        answer = Classification(
            model="digits",
            bundle="digits-edge@1",
            confidence=0.9,
            tier=tier,
            node=node,
            reason="confident",
            request_id=request.headers[headers.REQUEST_ID],
            label="7",
            score=0.9,
            top=(Scored("7", 0.9),),
        )
        sent = {
            "Content-Type": "application/msgpack",
            headers.TIER: tier,
            headers.NODE: node,
            headers.REASON: "confident",
            headers.CONFIDENCE: "0.9000",
            headers.CERTIFIED: "true",
            headers.DEGRADED: "false",
            headers.MODEL: "digits-edge@1",
            headers.REQUEST_ID: request.headers[headers.REQUEST_ID],
            headers.SERVER_TIMING: "queue;dur=0.100, infer;dur=1.500, total;dur=2.000",
        }
        return web.Response(body=msgspec.msgpack.encode(answer), headers=sent)

    return handler


def refuses(code: str, message: str = "Not today.", *, retry_after: str | None = None) -> Handler:
    async def handler(request: web.Request, body: bytes) -> web.StreamResponse:
        error = FoothillError(code, message)
        sent = {"Retry-After": retry_after} if retry_after else {}
        encoded = msgspec.json.encode(error.body(source="fra", request_id=request.headers[headers.REQUEST_ID]))
        return web.Response(status=error.status, body=encoded, content_type="application/json", headers=sent)

    return handler


def leases(*urls: str, cloud: str = "", ttl_s: float = 60.0, ticket: str = "") -> Handler:
    nodes = tuple(LeasedNode(f"n{at}", url, "eu", 1.0) for at, url in enumerate(urls))

    async def handler(request: web.Request, body: bytes) -> web.StreamResponse:
        assert request.path == "/v1/route"
        model = msgspec.json.decode(body, type=RouteRequest).model
        return web.Response(
            body=msgspec.json.encode(Lease(model, nodes, cloud, ttl_s, ticket=ticket)), content_type="application/json"
        )

    return handler


async def hangs(request: web.Request, body: bytes) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def cuts(request: web.Request, body: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
