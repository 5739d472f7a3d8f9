"""Bytes of a connection cut into plain requests: alike however they arrive, and alike to the parser behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from runtime.links.http.framing import MAX_HEAD_BYTES, MAX_HEADERS, Framing
from runtime.links.http.heads import Head

HOST = "Host: x\r\n"
LINE = "POST /v1/predict/digits HTTP/1.1\r\n"

TOKENS = st.text("abcXYZ-_019!~", min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=0x20), max_size=20).map(
    str.strip
)
TARGETS = st.text("abcXYZ019/-_.~?%#=&:@", max_size=20).map(lambda rest: "/" + rest)
METHODS = st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"])
KNOWN = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "content-encoding",
        "connection",
        "proxy-connection",
        "expect",
        "upgrade",
        "trailer",
    }
)


def wire(method: str, target: str, named: Sequence[tuple[str, str]], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in named)
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\n{HOST}{lines}{length}\r\n".encode() + body


@st.composite
def plain_requests(draw: st.DrawFn) -> tuple[str, str, dict[str, str], bytes]:
    named = draw(st.dictionaries(TOKENS.filter(lambda name: name.lower() not in KNOWN), VALUES, max_size=4))
    folded = {name.lower(): name for name in named}
    once = {name: named[name] for name in folded.values()}
    return draw(METHODS), draw(TARGETS), once, draw(st.binary(max_size=300))


def cut(framing: Framing, parts: Sequence[bytes]) -> list[tuple[Head, bytes]]:
    """Every request of what arrives in these parts, each part used as far as it goes."""
    done: list[tuple[Head, bytes]] = []
    head, body = None, b""
    for part in parts:
        framing.add(part)
        while True:
            if head is None:
                found = framing.head()
                assert not isinstance(found, bytes), found
                if found is None:
                    break
                head = found
            body += framing.take(head.alike.content_length - len(body))
            if len(body) < head.alike.content_length:
                break
            done.append((head, body))
            head, body = None, b""
    assert head is None
    assert framing.held == 0
    return done


@given(st.lists(plain_requests(), max_size=5), st.data())
def test_requests_are_the_same_however_their_bytes_are_cut(
    requests: list[tuple[str, str, dict[str, str], bytes]], data: st.DataObject
) -> None:
    whole = b"".join(wire(method, target, [*named.items()], body) for method, target, named, body in requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    got = cut(Framing(), parts)
    assert [(head.alike.method, head.alike.target, body) for head, body in got] == [
        (method, target, body) for method, target, _, body in requests
    ]
    for (head, _), (_, _, named, _) in zip(got, requests, strict=True):
        assert {name: head.alike.headers(head.varied)[name] for name in named} == named


def test_a_head_in_the_same_bytes_is_not_read_twice_and_another_is() -> None:
    framing = Framing()
    same, other = wire("POST", "/a", (), b"1"), wire("POST", "/a", (("x", "2"),), b"1")
    framing.add(same + same + other + same)
    heads = []
    for _ in range(4):
        head = framing.head()
        assert isinstance(head, Head)
        assert framing.take(head.alike.content_length) == b"1"
        heads.append(head)
    assert heads[0].alike is heads[1].alike
    assert heads[2].alike is not heads[1].alike
    assert heads[3].alike is not heads[0].alike
    assert (heads[2].alike.headers(heads[2].varied)["X"], "X" in heads[3].alike.headers(heads[3].varied)) == (
        "2",
        False,
    )


def test_a_head_of_which_the_end_has_not_come_waits_up_to_the_bound() -> None:
    framing = Framing()
    start = f"{LINE}{HOST}X: ".encode()
    framing.add(start + b"y" * (MAX_HEAD_BYTES - len(start)))
    assert framing.head() is None
    framing.add(b"y")
    assert framing.head() == start + b"y" * (MAX_HEAD_BYTES + 1 - len(start))
    assert framing.held == 0


# Each stands in a request that is plain but for it.
ODD_LINES = [
    "Content-Length: 3\r\nContent-Length: 3",
    "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length: 3\r\ncontent-length: 3",
    "Content-Length: 3, 3",
    "Content-Length: +3",
    "Content-Length: -3",
    "Content-Length: 0x3",
    "Content-Length: 3 ",
    "Content-Length: 3\t",
    "Content-Length:",
    "Content-Length: ３",
    "Content-Length: 1234567890123456",
    "Content-Length : 3",
    "Transfer-Encoding: chunked",
    "transfer-encoding:chunked",
    "TRANSFER-ENCODING: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Content-Length: 3\r\nTransfer-Encoding: chunked",
    "X: a\r\n b",
    "X: a\r\n\tTransfer-Encoding: chunked",
    "X: a\nY: b",
    "X: a\rY: b",
    "X: a\n",
    "X: a\r",
    "X: \x00",
    "X\x00: a",
    "X: a\x7f",
    "X y: a",
    "X",
    ": a",
    "é: a",
    "Connection: close",
    "Connection: Close",
    "Connection: keep-alive, close",
    "Connection: close , keep-alive",
    "Connection:",
    "Connection: close\r\nConnection: keep-alive",
    "Proxy-Connection: close",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "expect: 100-CONTINUE",
    "Expect: something",
    "Content-Encoding: gzip",
    "Content-Encoding: identity",
    "Content-Encoding:",
    "Trailer: X",
    "Host: y",
    "host: x",
    "Content-Type: a\r\nContent-Type: b",
    "Foothill-Residency: eu\r\nfoothill-residency: us",
]


@pytest.mark.parametrize("line", ODD_LINES)
@pytest.mark.parametrize("length", ["", "Content-Length: 3\r\n"])
def test_a_head_with_an_odd_line_is_not_plain(line: str, length: str) -> None:
    whole = f"{LINE}{HOST}{length}{line}\r\n\r\nabc".encode()
    framing = Framing()
    framing.add(whole)
    assert framing.head() == whole
    assert framing.held == 0


@pytest.mark.parametrize(
    "start",
    [
        "POST /a HTTP/1.0\r\nHost: x",
        "POST /a HTTP/1.0\r\nHost: x\r\nConnection: keep-alive",
        "POST /a HTTP/1.2\r\nHost: x",
        "POST /a HTTP/2.0\r\nHost: x",
        "POST /a\r\nHost: x",
        "POST /a HTTP/1.1",
        "POST  /a HTTP/1.1 \r\nHost: x",
        "POST /a b HTTP/1.1\r\nHost: x",
        "POST /\x00 HTTP/1.1\r\nHost: x",
        "POST /é HTTP/1.1\r\nHost: x",
        "post /a HTTP/1.1\r\nHost: x",
        "FOO /a HTTP/1.1\r\nHost: x",
        "CONNECT x:80 HTTP/1.1\r\nHost: x",
        "PRI * HTTP/2.0",
        "POST /a HTTP/1.1\nHost: x",
        "POST /a HTTP/1.1\r\nHost: x\r\n" + "".join(f"X{i}: y\r\n" for i in range(MAX_HEADERS))[:-2],
        "POST /a HTTP/1.1\r\nHost: x\r\nX: " + "y" * MAX_HEAD_BYTES,
        "",
    ],
)
def test_a_head_that_is_no_plain_one_is_handed_over_with_all_that_follows(start: str) -> None:
    whole = start.encode() + b"\r\n\r\n" + wire("POST", "/b", (), b"after")
    framing = Framing()
    framing.add(whole)
    assert framing.head() == whole
    assert framing.held == 0


def test_other_methods_and_targets_are_plain_if_their_heads_are() -> None:
    """Whose they are is not decided here."""
    framing = Framing()
    for target in ("*", "http://y/v1/predict/digits", "/a?b=c", "/a%2Fb", "/a#b", "//a", "/../a"):
        framing.add(f"OPTIONS {target} HTTP/1.1\r\n{HOST}\r\n".encode())
        head = framing.head()
        assert isinstance(head, Head)
        assert (head.alike.target, head.alike.content_length, framing.held) == (target, 0, 0)


class Server(BaseProtocol):
    """As much of aiohttp's as its parser asks for."""


def ends_in_aiohttp(whole: bytes) -> tuple[list[tuple[str, str, bytes]], bool]:
    """The requests that aiohttp finds in these bytes, and whether it refuses what comes behind them."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(
            Server(loop), loop, 1 << 16, max_line_size=8190, max_field_size=8190, max_headers=128, auto_decompress=False
        )
        messages, refused = [], False
        try:
            messages = parser.feed_data(whole)[0]
        except HttpProcessingError:
            refused = True
        told = []
        for message, payload in messages:
            body = b"".join(iter(payload.read_nowait, b"")) if payload.is_eof() else b"(not whole)"
            told.append((message.method, message.path, body))
        return told, refused
    finally:
        loop.close()


PIECES = st.sampled_from(
    [*ODD_LINES, "Content-Length: 0", "Content-Length: 3", "Content-Length: 5", "X: y", "Connection: keep-alive"]
)


@given(
    METHODS,
    st.lists(PIECES, max_size=3),
    st.binary(max_size=8),
    st.sampled_from(["\r\n", "\n", "\r\r\n", "\r\n\r\n"]),
)
def test_what_is_plain_here_ends_where_aiohttp_sees_its_end(
    method: str, lines: list[str], body: bytes, end: str
) -> None:
    """Else one caller's bytes could be taken for the next request."""
    head_bytes = f"{method} /a HTTP/1.1\r\n{HOST}{''.join(line + end for line in lines)}\r\n".encode()
    whole = head_bytes + body + wire("POST", "/next", (), b"after")
    framing = Framing()
    framing.add(whole)
    head = framing.head()
    if not isinstance(head, Head):
        assert head == whole
        return
    mine = framing.take(head.alike.content_length)
    found, refused = ends_in_aiohttp(head.alike.raw(head.varied) + mine)
    assert (found, refused) == ([(method, "/a", mine)], False)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from("\r\n\t\0 :,;-35xXé")), max_size=4))
def test_bytes_put_anywhere_in_a_head_never_make_the_two_disagree(changes: list[tuple[int, int, str]]) -> None:
    head_bytes = f"{LINE}{HOST}Content-Length: 5\r\nContent-Type: a/b\r\nConnection: keep-alive\r\n\r\n".encode()
    for at, gone, new in changes:
        head_bytes = head_bytes[:at] + new.encode() + head_bytes[at + gone :]
    framing = Framing()
    framing.add(head_bytes + b"hello" + wire("POST", "/next", (), b"after"))
    head = framing.head()
    if isinstance(head, Head):
        mine = framing.take(head.alike.content_length)
        found, refused = ends_in_aiohttp(head.alike.raw(head.varied) + mine)
        assert ([body for _, _, body in found], refused) == ([mine], False)
