"""The client between hops, against servers that answer, stall, break off and lie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ServeHandler = Callable[[Handler], Awaitable[str]]
ServeScript = Callable[[Script], Awaitable[str]]

ASK = Request("POST", "/v1/predict/digits", {"Content-Type": "image/png"}, b"png")


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams(max_body_bytes=1 << 22, connect_timeout_s=0.3)
    yield made
    await made.close()


def within(milliseconds: float) -> Deadline:
    return Deadline.after(milliseconds, now_s=time.monotonic())


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    return head + await reader.readexactly(length)


async def test_any_status_is_an_answer_and_bytes_pass_as_they_are(
    upstreams: Upstreams, serve_handler: ServeHandler
) -> None:
    async def echo(request: web.Request) -> web.Response:
        shown = {"X-Path": request.raw_path, "X-Sent": ",".join(sorted(request.headers)), "Content-Encoding": "gzip"}
        return web.Response(status=418, body=await request.read(), headers=shown)

    url = await serve_handler(echo)
    body = bytes(range(256)) * 8192
    asked = Request("POST", "/v2/a%2Fb?x=%20y", {"Content-Type": "image/png"}, body)
    answer = await upstreams.send(url, asked, deadline=within(5000))
    assert (answer.status, answer.body == body) == (418, True)
    assert answer.headers["x-path"] == "/v2/a%2Fb?x=%20y"
    assert answer.headers["x-sent"] == "Content-Length,Content-Type,Foothill-Deadline-Ms,Host"
    assert answer.hop_ms > 0


async def test_the_time_left_travels_along(upstreams: Upstreams, serve_handler: ServeHandler) -> None:
    async def deadline(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Foothill-Deadline-Ms"])

    answer = await upstreams.send(await serve_handler(deadline), ASK, deadline=within(1234))
    assert 1000 < int(answer.body) <= 1234


async def test_a_closed_port_is_unreachable_and_nothing_was_sent(upstreams: Upstreams, closed_url: str) -> None:
    with pytest.raises(UpstreamUnreachable) as raised:
        await upstreams.send(closed_url, ASK, deadline=within(5000))
    assert (raised.value.url, raised.value.sent) == (closed_url, False)


async def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.transport.abort()


async def break_off_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await writer.drain()


async def break_off_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def reset_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await break_off_body(reader, writer)
    writer.transport.abort()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"\x00\xff garbage\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize("script", [reset_at_once, break_off_head, break_off_body, reset_body, garbage])
async def test_an_answer_that_breaks_is_no_answer(
    upstreams: Upstreams, serve_script: ServeScript, script: Script
) -> None:
    with pytest.raises(UpstreamUnreachable) as raised:
        await upstreams.send(await serve_script(script), ASK, deadline=within(5000))
    assert raised.value.sent


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_stalled_upstream_ends_with_the_deadline(
    upstreams: Upstreams, serve_script: ServeScript, begin: bytes
) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begin)
        await asyncio.Event().wait()

    url = await serve_script(stall)
    started = time.monotonic()
    with pytest.raises(FoothillError, match="did not answer within") as raised:
        await upstreams.send(url, ASK, deadline=within(150))
    assert raised.value.code == "deadline_exceeded"
    assert 0.14 < time.monotonic() - started < 1.0


async def test_a_deadline_already_over_asks_nobody(upstreams: Upstreams, closed_url: str) -> None:
    with pytest.raises(FoothillError, match="deadline passed"):
        await upstreams.send(closed_url, ASK, deadline=within(0))


async def test_an_answer_over_the_limit_is_refused(serve_handler: ServeHandler) -> None:
    async def big(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 5000)

    small = Upstreams(max_body_bytes=4999)
    with pytest.raises(FoothillError, match="more than 4999 bytes"):
        await small.send(await serve_handler(big), ASK, deadline=within(5000))
    await small.close()


async def test_a_stale_connection_costs_one_retry_on_a_new_one(upstreams: Upstreams, serve_script: ServeScript) -> None:
    connections, requests = 0, 0

    async def once_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request with keep-alive, and drops the connection when the second arrives."""
        nonlocal connections, requests
        connections += 1
        await read_request(reader)
        requests += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await read_request(reader)
        requests += 1

    url = await serve_script(once_each)
    answers = [await upstreams.send(url, ASK, deadline=within(5000)) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"ok", b"ok"]
    assert (connections, requests) == (2, 3)


async def test_what_was_sent_on_a_stale_connection_is_not_sent_again_where_there_is_no_budget(
    upstreams: Upstreams, serve_script: ServeScript
) -> None:
    requests = 0

    async def once_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await read_request(reader)
        requests += 1

    asked: list[int] = []

    def no_budget() -> bool:
        asked.append(1)
        return False

    url = await serve_script(once_each)
    await upstreams.send(url, ASK, deadline=within(5000))
    with pytest.raises(UpstreamUnreachable, match="ended"):
        await upstreams.send(url, ASK, deadline=within(5000), may_retry=no_budget)
    assert (requests, len(asked)) == (1, 1)


async def test_a_new_connection_that_fails_is_not_retried(upstreams: Upstreams, serve_script: ServeScript) -> None:
    connections = 0

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    with pytest.raises(UpstreamUnreachable):
        await upstreams.send(await serve_script(drop), ASK, deadline=within(5000))
    assert connections == 1


async def test_cancelling_the_caller_closes_the_connection(upstreams: Upstreams, serve_script: ServeScript) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()
        closed.set()

    sending = asyncio.create_task(upstreams.send(await serve_script(watch), ASK, deadline=within(5000)))
    await asyncio.wait_for(asked.wait(), 5)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.wait_for(closed.wait(), 5)


async def test_connect_to_reaches_another_origin_under_the_first_ones_name(serve_handler: ServeHandler) -> None:
    async def host(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"] + request.path)

    real = await serve_handler(host)
    moved = Upstreams(connect_to={"http://edge-fra:8100": real})
    answer: Answer = await moved.send("http://edge-fra:8100/", ASK, deadline=within(5000))
    assert answer.body == b"edge-fra:8100/v1/predict/digits"
    await moved.close()


async def test_a_host_that_takes_no_connection_is_given_up_early(upstreams: Upstreams) -> None:
    """A full backlog drops what comes next, as a host behind a broken link does."""
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        with pytest.raises(UpstreamUnreachable) as raised:
            await upstreams.send(f"http://127.0.0.1:{port}", ASK, deadline=within(5000))
        for each in waiting:
            each.close()
    assert not raised.value.sent
    assert "no connection within 0.3 s" in raised.value.reason


async def test_who_still_asks_while_the_process_stops_is_told_so(serve_handler: ServeHandler) -> None:
    async def host(_: web.Request) -> web.Response:
        return web.Response()

    url, closed = await serve_handler(host), Upstreams()
    await closed.close()
    with pytest.raises(UpstreamUnreachable, match="this process stops") as raised:
        await closed.send(url, ASK, deadline=within(5000))
    assert not raised.value.sent
