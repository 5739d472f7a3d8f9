"""Servers on port 0 for the tests of the links: applications, and scripts of raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from runtime.links.http.serve import start_app

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def serve_handler() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Serves one handler on every path; returns its URL."""
    runners: list[web.AppRunner] = []

    async def serve(handler: Handler) -> str:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", handler)
        runner, url = await start_app(app, "127.0.0.1", 0, name="upstream", drain_s=0.1)
        runners.append(runner)
        return url

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def serve_script() -> AsyncIterator[Callable[[Script], Awaitable[str]]]:
    """Serves one script of raw bytes to every connection; returns its URL."""
    servers: list[asyncio.Server] = []
    running: set[asyncio.Task[None]] = set()

    async def serve(script: Script) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await script(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                running.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
def closed_url(unused_tcp_port: int) -> str:
    """A URL where nothing listens."""
    return f"http://127.0.0.1:{unused_tcp_port}"
