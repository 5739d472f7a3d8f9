"""Connections to an upstream: kept, shared out one at a time, and given up when something is wrong with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.http import upstream, wires
from runtime.links.http.upstream import Request, Upstreams, UpstreamUnreachable

ASK = Request("POST", "/v1/predict/digits", {"Content-Type": "image/png"}, b"png")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A server of raw bytes: `script` plays each connection; they and their requests are counted."""

    def __init__(self) -> None:
        self.script: Script = self.answers
        self.connections = self.open = self.requests = 0
        self.ended = asyncio.Event()
        self.url = ""

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self.request(reader):
            writer.write(OK)

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """One request of the test's; b"" where no more comes."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        self.requests += 1
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return head + await reader.readexactly(length)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self.script(reader, writer)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            self.ended.set()
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Upstream]:
    made = Upstream()
    listening = await made.start()
    yield made
    listening.close()


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams(connect_timeout_s=1.0)
    yield made
    await made.close()


async def ask(upstreams: Upstreams, server: Upstream, within_ms: float = 5000.0) -> bytes:
    deadline = Deadline.after(within_ms, now_s=time.monotonic())
    return (await upstreams.send(server.url, ASK, deadline=deadline)).body


async def test_one_connection_carries_one_request_after_another(upstreams: Upstreams, server: Upstream) -> None:
    assert [await ask(upstreams, server) for _ in range(5)] == [b"ok"] * 5
    assert (server.connections, server.requests) == (1, 5)


async def test_requests_at_the_same_time_have_connections_of_their_own_up_to_the_limit(
    upstreams: Upstreams, server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_CONNECTIONS_PER_ORIGIN", 4)
    most = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        while await server.request(reader):
            most = max(most, server.open)
            await asyncio.sleep(0.01)
            writer.write(OK)

    server.script = slow
    assert await asyncio.gather(*(ask(upstreams, server) for _ in range(20))) == [b"ok"] * 20
    assert (server.connections, server.requests, most) == (4, 20, 4)


async def test_who_waits_for_a_connection_and_leaves_takes_nobodys_turn(
    upstreams: Upstreams, server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_CONNECTIONS_PER_ORIGIN", 1)
    let_go = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await server.request(reader):
            await let_go.wait()
            writer.write(OK)

    server.script = held
    first = asyncio.create_task(ask(upstreams, server))
    await asyncio.sleep(0.05)
    leaves, stays = asyncio.create_task(ask(upstreams, server)), asyncio.create_task(ask(upstreams, server))
    late = asyncio.create_task(ask(upstreams, server, within_ms=50))
    await asyncio.sleep(0.1)
    leaves.cancel()
    let_go.set()
    assert await first == await stays == b"ok"
    with pytest.raises(FoothillError, match="did not answer within"):
        await late
    assert server.connections == 1


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\x00"])
async def test_what_comes_unasked_ends_the_connection(upstreams: Upstreams, server: Upstream, unasked: bytes) -> None:
    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(unasked)
        await reader.read()

    server.script = talks
    assert await ask(upstreams, server) == b"ok"
    await asyncio.wait_for(server.ended.wait(), 5)
    assert await ask(upstreams, server) == b"ok"
    assert (server.connections, server.requests) == (2, 2)


async def test_an_answer_with_something_behind_it_is_not_believed(upstreams: Upstreams, server: Upstream) -> None:
    async def doubles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK + OK)
        await reader.read()

    server.script = doubles
    with pytest.raises(UpstreamUnreachable, match="behind its end"):
        await ask(upstreams, server)
    await asyncio.wait_for(server.ended.wait(), 5)


async def test_a_connection_that_the_upstream_ends_between_requests_is_not_used_again(
    upstreams: Upstreams, server: Upstream
) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK)

    server.script = once
    assert await ask(upstreams, server) == b"ok"
    await asyncio.wait_for(server.ended.wait(), 5)
    await asyncio.sleep(0.02)
    assert await ask(upstreams, server) == b"ok"
    assert (server.connections, server.requests) == (2, 2)


async def test_a_connection_without_work_ends_after_a_while(
    upstreams: Upstreams, server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wires, "_IDLE_S", 0.05)
    assert await ask(upstreams, server) == b"ok"
    await asyncio.wait_for(server.ended.wait(), 5)
    assert await ask(upstreams, server) == b"ok"
    assert server.connections == 2


async def test_what_is_idle_beside_a_connection_that_is_dead_is_closed(upstreams: Upstreams, server: Upstream) -> None:
    await asyncio.gather(ask(upstreams, server), ask(upstreams, server))
    assert (server.connections, server.open) == (2, 2)
    upstreams.doubt(server.url)
    upstreams.doubt("http://127.0.0.1:1")
    await asyncio.wait_for(server.ended.wait(), 5)
    await asyncio.sleep(0.05)
    assert server.open == 0
    assert await ask(upstreams, server) == b"ok"
    assert server.connections == 3


async def test_an_early_answer_is_taken_and_its_connection_is_not_used_again(
    upstreams: Upstreams, server: Upstream
) -> None:
    """Before the body was read: whoever answers so may well close, and what is still sent would be a request."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await reader.readexactly(1 << 20)

    server.script = early
    large = Request("POST", "/v1/predict/digits", {}, bytes(8 << 20))
    answer = await upstreams.send(server.url, large, deadline=Deadline.after(5000, now_s=time.monotonic()))
    assert answer.status == 413


async def test_a_large_body_arrives_whole_at_a_slow_reader(upstreams: Upstreams, server: Upstream) -> None:
    body = bytes(range(256)) * (1 << 14)
    received = b""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        while len(received) < len(body):
            received += await reader.read(50_000)
            await asyncio.sleep(0.0005)
        writer.write(OK)

    server.script = slow
    asked = Request("POST", "/v1/predict/digits", {}, body)
    answer = await upstreams.send(server.url, asked, deadline=Deadline.after(20_000, now_s=time.monotonic()))
    assert (answer.body, received == body) == (b"ok", True)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/\x00", ""])
async def test_a_request_that_would_be_another_is_not_sent(upstreams: Upstreams, server: Upstream, path: str) -> None:
    asked = Request("POST", path, {}, b"")
    with pytest.raises(FoothillError, match="is no request"):
        await upstreams.send(server.url, asked, deadline=Deadline.after(5000, now_s=time.monotonic()))
    header = Request("POST", "/", {"X": "a\r\nY: b"}, b"")
    with pytest.raises(FoothillError, match="line break"):
        await upstreams.send(server.url, header, deadline=Deadline.after(5000, now_s=time.monotonic()))
    assert server.requests == 0
    assert await ask(upstreams, server) == b"ok"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "http://", "nonsense", "http://127.0.0.1:99999"])
async def test_what_is_no_url_is_unreachable(upstreams: Upstreams, url: str) -> None:
    with pytest.raises(UpstreamUnreachable) as raised:
        await upstreams.send(url, ASK, deadline=Deadline.after(5000, now_s=time.monotonic()))
    assert not raised.value.sent
