"""Bytes that two readers of HTTP could understand differently: the router understands them one way, or refuses them.

The other reader is h11. Whatever the router took for a request, h11 has taken for the same one; a node never gets
anything else, and behind what is refused nothing more is read.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator

import h11
import pytest

from tests.router.rig import Server, static
from tests.router.test_app import Route, cloud, edge, router
from tests.runtime.raw_caller import RawCaller, post

__all__ = ["cloud", "edge", "router"]

TARGET = "/v1/predict/digits"
FIRST = f"POST {TARGET} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n".encode()
HIDDEN = b"POST /v1/predict/digits HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhidden"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

REFUSED: dict[str, bytes] = {
    "CL.TE": FIRST + b"Content-Length: %d\r\n" % (5 + len(HIDDEN)) + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE.CL": FIRST + CHUNKED + b"Content-Length: 4\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "two lengths": FIRST + b"Content-Length: 1\r\nContent-Length: %d\r\n\r\nx" % (1 + len(HIDDEN)) + HIDDEN,
    "two equal lengths": FIRST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a list of lengths": FIRST + b"Content-Length: 1, %d\r\n\r\nx" % (1 + len(HIDDEN)) + HIDDEN,
    "a signed length": FIRST + b"Content-Length: +1\r\n\r\nx" + HIDDEN,
    "a negative length": FIRST + b"Content-Length: -1\r\n\r\nx" + HIDDEN,
    "a length in hex": FIRST + b"Content-Length: 0x1\r\n\r\nx" + HIDDEN,
    "a length with an underscore": FIRST + b"Content-Length: 1_0\r\n\r\nx" + HIDDEN,
    "an empty length": FIRST + b"Content-Length:\r\n\r\n" + HIDDEN,
    "an enormous length": FIRST + b"Content-Length: 99999999999999999999999999\r\n\r\nx" + HIDDEN,
    "a blank before the colon": FIRST + b"Content-Length : 1\r\n\r\nx" + HIDDEN,
    "a coding in disguise": FIRST + b"Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a coding behind a tab": FIRST + b"Transfer-Encoding:\x0bchunked\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "two codings": FIRST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding that is folded": FIRST + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a fold before the first header": FIRST[:-2] + b"\n x: y\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a header without a name": FIRST + b": 1\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a header without a colon": FIRST + b"Content-Length 1\r\n\r\nx" + HIDDEN,
    "a NUL in a value": FIRST + b"X: a\x00b\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a CR in a value": FIRST + b"X: a\rb\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "lines that end in LF alone": FIRST.replace(b"\r\n", b"\n") + b"Content-Length: 1\n\nx" + HIDDEN,
    "one line that ends in LF alone": FIRST + b"X: y\nContent-Length: 1\r\n\r\nx" + HIDDEN,
    "a chunk without a size": FIRST + CHUNKED + b"\r\n\r\nx\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size with a prefix": FIRST + CHUNKED + b"\r\n0x1\r\nx\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size with a sign": FIRST + CHUNKED + b"\r\n+1\r\nx\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size below zero": FIRST + CHUNKED + b"\r\n-1\r\nx\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size with a blank": FIRST + CHUNKED + b"\r\n 1\r\nx\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size beyond 64 bits": FIRST + CHUNKED + b"\r\n10000000000000001\r\nx\r\n0\r\n\r\n" + HIDDEN,
    "a chunk longer than its size": FIRST + CHUNKED + b"\r\n1\r\nxy\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in LF alone": FIRST + CHUNKED + b"\r\n1\nx\n0\n\n" + HIDDEN,
    "no version": f"POST {TARGET}\r\n\r\n".encode() + HIDDEN,
    "an unknown version": FIRST.replace(b"HTTP/1.1", b"HTTP/1.9") + b"Content-Length: 1\r\n\r\nx" + HIDDEN,
    "no host": FIRST.replace(b"Host: x\r\n", b"") + b"Content-Length: 1\r\n\r\nx",
}  # fmt: skip


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_ambiguous_is_refused_and_nothing_behind_it_is_read(
    router: Route, edge: Server, name: str, *, warm: bool
) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    caller = await RawCaller.connect(client.url)
    if warm:
        for _ in range(2):
            await caller.send(post(TARGET, b"good", Content_Type="image/png"))
            assert (await caller.answer()).status == 200
    await caller.send(REFUSED[name])
    told = await caller.answer()
    assert told.status == 400, told
    assert await caller.rest() == b""
    await caller.close()
    assert set(edge.bodies) <= {b"good"}


def understood(stream: bytes) -> list[bytes]:
    """The bodies of the predictions that h11 reads in it, up to what it refuses.

    It is told of one blank where there are several before the version: readers may take them for one (RFC 9112, 3).
    """
    stream = re.sub(rb" +HTTP/", b" HTTP/", stream)
    reader, body, asked = h11.Connection(h11.SERVER), b"", b""
    bodies: list[bytes] = []
    reader.receive_data(stream)
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError:
            return bodies
        if isinstance(event, h11.Request):
            asked, body = event.method + b" " + event.target.removeprefix(b"http://x"), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            if asked == f"POST {TARGET}".encode():
                bodies.append(body)
            reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            reader.send(h11.EndOfMessage())
            if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                return bodies
            reader.start_next_cycle()
        else:
            return bodies


def streams(seed: int, count: int) -> Iterator[bytes]:
    """Requests one behind another, most of them with something odd about their bytes."""
    rng = random.Random(seed)
    for _ in range(count):
        yield b"".join(_request(rng, number) for number in range(rng.randint(1, 4)))


def _request(rng: random.Random, number: int) -> bytes:
    body = b"%d-" % number + b"x" * rng.choice([0, 1, 5, 40])
    lines = [f"POST {TARGET} HTTP/1.1".encode(), b"Host: x", b"Content-Type: image/png"]
    if rng.random() < 0.5:
        lines.append(b"Content-Length: %d" % len(body))
        sent = body
    else:
        lines.append(b"Transfer-Encoding: chunked")
        cut = rng.randint(0, len(body))
        parts = [part for part in (body[:cut], body[cut:]) if part]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    request = b"\r\n".join(lines) + b"\r\n\r\n" + sent
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        request = rng.choice(ODDITIES)(rng, request)
    return request


Oddity = Callable[[random.Random, bytes], bytes]


def _replaced(old: bytes, new: bytes) -> Oddity:
    return lambda _, request: request.replace(old, new, 1)


def _cut_or_doubled(rng: random.Random, request: bytes) -> bytes:
    at = rng.randrange(len(request))
    return request[:at] + (request[at : at + 1] * 2 if rng.random() < 0.5 else b"") + request[at + 1 :]


def _one_byte_else(rng: random.Random, request: bytes) -> bytes:
    at = rng.randrange(len(request))
    return request[:at] + bytes([rng.choice(b"\x00\t\n\r ,:;0179aAxX\x0b\x80\xff")]) + request[at + 1 :]


def _another_header(rng: random.Random, request: bytes) -> bytes:
    told = [
        b"Content-Length: 3", b"content-length: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity", b"Connection: close", b"Connection: keep-alive, upgrade", b"Upgrade: h2c",
        b"Expect: 100-continue", b"X: a\r\n b", b"Trailer: X", b"Host: y", b"X: \xff", b"Proxy-Connection: close",
        b"Connection: Content-Length", b"Content-Length:  5 ", b"Keep-Alive: timeout=1",
    ]  # fmt: skip
    first, _, rest = request.partition(b"\r\n")
    return first + b"\r\n" + rng.choice(told) + b"\r\n" + rest


ODDITIES: list[Oddity] = [
    _cut_or_doubled,
    _one_byte_else,
    _another_header,
    _another_header,
    _replaced(b"HTTP/1.1", b"HTTP/1.0"),
    _replaced(b"POST", b"GET"),
    _replaced(b"POST", b"post"),
    _replaced(b" HTTP", b"  HTTP"),
    _replaced(b" /v1", b" http://x/v1"),
    _replaced(b"\r\n\r\n", b"\n\n"),
    _replaced(b"\r\n", b"\n"),
    _replaced(b": ", b":"),
    _replaced(b":", b" :"),
    _replaced(b"\r\n0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n"),
    _replaced(b"\r\n0\r\n", b"\r\n0;a=b\r\n"),
    _replaced(b"\r\n0\r\n", b"\r\n00\r\n"),
]


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_taken_for_a_request_another_reader_takes_for_the_same(
    router: Route, edge: Server, seed: int
) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    for stream in streams(seed, 40):
        edge.bodies.clear()
        caller = await RawCaller.connect(client.url)
        await caller.send(stream)
        caller.writer.write_eof()
        told = await caller.rest()
        await caller.close()
        expected = understood(stream)
        assert edge.bodies == expected[: len(edge.bodies)], (stream, told)
        assert told.count(b"HTTP/1.1 200 OK") >= len(edge.bodies) - 1 or not told, (stream, told)


async def test_half_of_a_request_is_none(router: Route, edge: Server) -> None:
    """Wherever it breaks off."""
    client = await router([static("edge-fra", edge.url)], [])
    request = FIRST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n"
    for whole in (request, post(TARGET, b"abc", Content_Type="image/png")):
        for end in range(1, len(whole), 7):
            caller = await RawCaller.connect(client.url)
            await caller.send(whole[:end])
            caller.writer.write_eof()
            await asyncio.wait_for(caller.rest(), 10)
            await caller.close()
    assert edge.bodies == []
