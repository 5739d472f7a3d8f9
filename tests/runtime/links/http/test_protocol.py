"""Bytes that are no HTTP get the contract's error body, and no line in the log."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import web

from contracts.errors import ErrorBody
from runtime.links.http.errors import error_middleware
from runtime.links.http.serve import start_app

POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application(middlewares=[error_middleware("fra-1")])
    app.router.add_post("/", read)
    runner, url = await start_app(app, "127.0.0.1", 0, name="fra-1", drain_s=0.1)
    yield url
    await runner.cleanup()


async def sent(url: str, data: bytes) -> tuple[bytes, bytes]:
    """Head and body of what comes back for raw bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        POST + b"X: \x00\r\n\r\n",
    ],
)
async def test_a_mistake_below_the_application_is_told_in_the_contracts_form(
    url: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        head, body = await sent(url, data)
    assert head.split(b"\r\n")[0].endswith(b" 400 Bad Request")
    told = msgspec.json.decode(body, type=ErrorBody, strict=True)
    assert (told.code, told.source, told.retryable) == ("bad_request", "fra-1", False)
    assert len(told.message) < 400
    assert f"Foothill-Request-Id: {told.request_id}".encode() in head
    assert not caplog.records


async def test_good_requests_pass(url: str) -> None:
    packed = gzip.compress(b"hello")
    head, body = await sent(url, POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"hello")
