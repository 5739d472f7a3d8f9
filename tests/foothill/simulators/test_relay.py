"""The delaying relay over real sockets: nothing is lost, changed or reordered, everything is late by the distance."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foothill.simulators.links import Link
from foothill.simulators.relay import Relay, Timeline

pytestmark = pytest.mark.integration

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def relayed(talk: Talk | None, rtt_ms: float) -> AsyncIterator[Relay]:
    """A relay in front of a server that talks so; None: in front of a closed port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        talks: list[asyncio.Task[None] | None] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert talk is not None
            talks.append(asyncio.current_task())
            try:
                await talk(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        server = None
        if talk is not None:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        relay = Relay(Link("link", f"127.0.0.1:{port}", rtt_ms), Timeline(loop), loop)
        await relay.listen("127.0.0.1")
        try:
            yield relay
        finally:
            await relay.close()
            if server is not None:
                server.close()
            await asyncio.gather(*filter(None, talks))


@contextlib.asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@given(st.lists(st.binary(min_size=1, max_size=5000), min_size=1, max_size=20), st.sampled_from([0.0, 1.0, 7.0]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_bytes_arrive_intact_and_in_order_for_any_chunking(chunks: list[bytes], rtt_ms: float) -> None:
    async def story() -> bytes:
        async with relayed(echo, rtt_ms) as relay, connected(relay) as (reader, writer):
            for chunk in chunks:
                writer.write(chunk)
                await asyncio.sleep(0)
            writer.write_eof()
            return await reader.read()

    assert asyncio.run(story()) == b"".join(chunks)


async def test_the_handshake_and_each_exchange_cost_one_round_trip() -> None:
    first: list[float] = []
    later: list[float] = []
    async with relayed(echo, 60.0) as relay:
        for _ in range(4):
            started = time.monotonic()  # before it connects: the relay may be at its handshake before the caller hears
            async with connected(relay) as (reader, writer):
                for took in (first, later, later):
                    writer.write(b"ping")
                    assert await reader.readexactly(4) == b"ping"
                    took.append((time.monotonic() - started) * 1000.0)
                    started = time.monotonic()
    # The best of several: a busy machine may add to any of them, nothing may take from one.
    assert 118.0 <= min(first) <= 180.0
    assert 58.0 <= min(later) <= 100.0


async def test_a_server_that_speaks_first_is_heard_two_round_trips_later() -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")

    async with relayed(greets, 40.0) as relay:
        started = time.monotonic()
        async with connected(relay) as (reader, _):
            assert await reader.read() == b"hello"
            assert time.monotonic() - started >= 0.078


async def test_a_large_transfer_is_not_slowed_to_a_window_a_round_trip() -> None:
    block = random.Random(1).randbytes(1 << 20)
    received = hashlib.sha256()

    async def swallows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            received.update(data)
        writer.write(received.digest())
        writer.close()

    async with relayed(swallows, 100.0) as relay, connected(relay) as (reader, writer):
        started = time.monotonic()
        for _ in range(48):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
        digest = await reader.read()
        took_s = time.monotonic() - started
        count = relay.count()
    assert digest == hashlib.sha256(block * 48).digest()
    assert (count.up_bytes, count.down_bytes) == (48 << 20, 32)
    # With a 64 KiB window each 100 ms it would take 77 s.
    assert took_s < 20


async def test_a_sink_that_does_not_read_stops_the_source() -> None:
    go_on = asyncio.Event()
    received = 0

    async def reads_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await go_on.wait()
        while data := await reader.read(1 << 20):
            received += len(data)
        writer.close()

    block = bytes(1 << 20)
    async with relayed(reads_late, 1.0) as relay, connected(relay) as (reader, writer):
        sent = 0
        with contextlib.suppress(asyncio.TimeoutError):
            while sent < 400:
                writer.write(block)
                await asyncio.wait_for(writer.drain(), 1.0)
                sent += 1
        assert sent < 200
        go_on.set()
        await writer.drain()
        writer.write_eof()
        await reader.read()
    assert received == (sent + 1) << 20


async def test_a_target_that_refuses_shows_as_a_reset() -> None:
    async with relayed(None, 20.0) as relay:
        started = time.monotonic()
        async with connected(relay) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert time.monotonic() - started >= 0.018
        assert relay.count().refused == 1


async def test_a_reset_at_the_target_travels_back_after_what_was_sent_before_it() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(b"half an ans")
        await writer.drain()
        connected_socket = writer.get_extra_info("socket")
        connected_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with relayed(breaks, 10.0) as relay, connected(relay) as (reader, writer):
        writer.write(b"ping")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(100)


async def test_a_client_that_vanishes_is_noticed_at_the_target() -> None:
    noticed = asyncio.Event()

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1000))
                await writer.drain()
                await asyncio.sleep(0.005)
        noticed.set()
        writer.close()

    async with relayed(streams, 4.0) as relay:
        async with connected(relay) as (reader, _):
            await reader.readexactly(1000)
        await asyncio.wait_for(noticed.wait(), 5)
        await asyncio.wait_for(relay.idle(), 5)


async def test_one_side_may_end_while_the_other_goes_on() -> None:
    async def counts_then_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = len(await reader.read())
        for number in range(length):
            writer.write(f"{number}\n".encode())
            await asyncio.sleep(0.002)
        writer.close()

    async with relayed(counts_then_answers, 10.0) as relay, connected(relay) as (reader, writer):
        writer.write(b"abcde")
        writer.write_eof()
        assert await reader.read() == b"0\n1\n2\n3\n4\n"
        await asyncio.wait_for(relay.idle(), 5)
        assert relay.count().connections == 1


async def test_a_thousand_connections_wait_together() -> None:
    async def one(relay: Relay) -> float:
        started = time.monotonic()
        async with connected(relay) as (reader, writer):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            return time.monotonic() - started

    async with relayed(echo, 200.0) as relay:
        started = time.monotonic()
        took = await asyncio.gather(*(one(relay) for _ in range(1000)))
        whole = time.monotonic() - started
    assert min(took) >= 0.398
    # One after the other they would take 400 s.
    assert whole < 20
