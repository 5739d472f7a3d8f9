"""Answers as they come over a wire: understood as another reader of HTTP understands them, however they are cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.links.http import replies
from runtime.links.http.replies import BrokenReply, LargeReply, Reply

MAX_BODY = 1 << 20


def reply(method: str = "POST", max_body_bytes: int = MAX_BODY) -> Reply:
    return Reply(method, memoryview(bytearray(1 << 16)), max_body_bytes=max_body_bytes)


def feed(reading: Reply, data: bytes) -> None:
    """As a connection does: into the room that it is given, and not behind an end."""
    while data:
        if reading.done:
            raise BrokenReply("nobody asked for this")
        room = reading.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        del room
        reading.filled(count)
        data = data[count:]


def read(pieces: Sequence[bytes], *, method: str = "POST", ends: bool = False, max_body_bytes: int = MAX_BODY) -> Reply:
    reading = reply(method, max_body_bytes)
    for piece in pieces:
        feed(reading, piece)
    if ends:
        reading.ended()
    return reading


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def chunked(body: bytes, sizes: Sequence[int], trailers: bytes = b"") -> bytes:
    parts = []
    for size in sizes:
        part, body = body[:size], body[size:]
        if part:
            parts.append(b"%x\r\n%b\r\n" % (len(part), part))
    if body:
        parts.append(b"%x;name=value\r\n%b\r\n" % (len(body), body))
    return b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


NAMES = st.sampled_from(["Content-Type", "X-One", "x-two", "Foothill-Digest", "Server-Timing"])
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bool]:
    """The bytes of an answer, and whether it lasts until its connection ends."""
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 429, 503]))
    body = b"" if status in (204, 304) else draw(st.binary(max_size=300))
    lines = [f"{name}: {value}" for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))]
    way = draw(st.sampled_from(["length", "chunked", "close"])) if status not in (204, 304) else "none"
    closes = way == "close" or draw(st.booleans())
    if way == "length":
        lines.append(f"content-length: {len(body)}")
    elif way == "chunked":
        lines.append("Transfer-Encoding: chunked")
        trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
        body = chunked(body, draw(st.lists(st.integers(1, 50), max_size=4)), trailers)
    if closes:
        lines.append(draw(st.sampled_from(["Connection: close", "connection: Close"])))
    before = draw(st.sampled_from(["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]))
    head = before + f"HTTP/1.1 {status} Any\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + body, way == "close"


@given(answers(), st.lists(st.integers(0, 2000), max_size=6))
def test_an_answer_is_understood_as_h11_does_wherever_it_is_cut(answer: tuple[bytes, bool], places: list[int]) -> None:
    data, until_the_end = answer
    found = read(cut(data, places), ends=until_the_end)
    status, told, body, reusable = by_h11(data)
    assert found.done
    assert (found.status, found.body) == (status, body)
    assert [(name.lower(), value) for name, value in found.headers.items()] == told
    assert found.reusable == reusable


def by_h11(data: bytes) -> tuple[int, list[tuple[str, str]], bytes, bool]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head: h11.Response | None = None
    body = b""
    ended = False
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            assert not ended
            connection.receive_data(b"")
            ended = True
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
    assert head is not None
    told = [(name.decode(), value.decode()) for name, value in head.headers]
    return head.status_code, told, body, connection.their_state is not h11.MUST_CLOSE


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
BROKEN = {
    "no http": b"\x00\xff\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "one length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "a length in hex": b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc",
    "an endless length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    "length and chunks": CHUNKED + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks and length": CHUNKED.replace(b"OK", b"OK\r\nContent-Length: 3") + b"\r\n3\r\nabc\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "coding in disguise": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two codings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "a bare carriage return": b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 3\r\n\r\nabc",
    "a zero byte": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a chunk size without end": CHUNKED + b"\r\n" + b"f" * 40 + b"\r\n",
    "more than was asked for": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n",
    "more behind an empty one": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nabc",
    "more behind a bare head": b"HTTP/1.1 204 No Content\r\n\r\nabc",
    "a second one behind chunks": CHUNKED + b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "too long a head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * replies.MAX_HEAD_BYTES + b"\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * (replies.MAX_HEADERS + 1) + b"\r\n",
    "too many trailers": CHUNKED + b"\r\n0\r\n" + b"X: a\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_answer_is_told_wherever_it_is_cut(data: bytes) -> None:
    for pieces in (
        [data],
        [data[:9], data[9:]],
        [data[i : i + 1] for i in range(len(data))] if len(data) < 500 else [data],
    ):
        with pytest.raises(BrokenReply):
            read(pieces)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        CHUNKED + b"\r\n3\r\nabc\r\n",
    ],
)
def test_an_answer_that_ends_too_soon_is_none(data: bytes) -> None:
    with pytest.raises(BrokenReply, match="ended before the answer did"):
        read([data] if data else [], ends=True)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        ("HEAD", CHUNKED + b"\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_some_answers_have_no_body_whatever_they_say(method: str, data: bytes) -> None:
    found = read([data], method=method)
    assert (found.done, found.body, found.reusable) == (True, b"", True)


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_body_over_the_limit_is_not_taken(size: int) -> None:
    body = b"x" * size
    for data in (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size,
        CHUNKED + b"\r\n" + chunked(body, [size // 3] * 2),
        b"HTTP/1.1 200 OK\r\n\r\n" + body,
    ):
        with pytest.raises(LargeReply):
            read([data], max_body_bytes=size - 1)


def test_a_large_body_is_read_to_its_place() -> None:
    size = 3 << 20
    body = bytes(range(256)) * (size // 256)
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body
    found = read(cut(data, range(0, size, 70_000)), max_body_bytes=size)
    assert (found.done, found.body == body) == (True, True)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, Close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", False),
    ],
)
def test_a_connection_is_used_again_where_nothing_speaks_against_it(head: bytes, reusable: bool) -> None:
    assert read([head]).reusable == reusable


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_are_an_answer_or_are_told(data: bytes, places: list[int]) -> None:
    try:
        found = read(cut(data, places), ends=True)
    except (BrokenReply, LargeReply):
        return
    assert found.done
