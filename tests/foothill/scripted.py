"""Scripted HTTP servers on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

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
