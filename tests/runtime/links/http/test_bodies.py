"""Reading bodies: whole or refused, within the limit and the deadline."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web

from contracts.deadlines import Deadline
from contracts.errors import ErrorBody
from runtime.links.http.bodies import read_body
from runtime.links.http.errors import error_middleware
from runtime.links.http.serve import start_app

LIMIT = 100_000


async def echo(request: web.Request) -> web.Response:
    deadline = Deadline.after(500, now_s=time.monotonic())
    return web.Response(body=await read_body(request, LIMIT, deadline, time.monotonic))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application(middlewares=[error_middleware("test")])
    app.router.add_post("/", echo)
    runner, url = await start_app(app, "127.0.0.1", 0, name="test", drain_s=0.1)
    yield url
    await runner.cleanup()


async def posted(url: str, body: object, sent: dict[str, str] | None = None) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=sent) as response:
        return response.status, await response.read()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("size", [0, 1, 70_000, LIMIT])
async def test_a_body_within_the_limit_is_read_whole(url: str, size: int) -> None:
    assert await posted(url, b"x" * size) == (200, b"x" * size)
    assert await posted(url, pieces(b"x" * size, b"")) == (200, b"x" * size)


async def test_a_compressed_body_is_read_decompressed(url: str) -> None:
    body = gzip.compress(b"x" * 1000)
    assert await posted(url, body, {"Content-Encoding": "gzip"}) == (200, b"x" * 1000)


@pytest.mark.parametrize("how", ["declared", "chunked", "compressed"])
async def test_a_body_over_the_limit_is_refused_however_it_comes(url: str, how: str) -> None:
    big = b"x" * (LIMIT + 1)
    if how == "compressed":
        status, told = await posted(url, gzip.compress(big), {"Content-Encoding": "gzip"})
    else:
        status, told = await posted(url, big if how == "declared" else pieces(big[:-1], big[-1:]))
    assert (status, msgspec.json.decode(told, type=ErrorBody).code) == (413, "body_too_large")


async def test_a_body_that_is_not_what_it_says_is_refused(url: str) -> None:
    status, told = await posted(url, b"no gzip", {"Content-Encoding": "gzip"})
    assert (status, msgspec.json.decode(told, type=ErrorBody).code) == (400, "bad_request")


async def test_a_body_that_never_comes_ends_with_the_deadline(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    assert b" 504 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
