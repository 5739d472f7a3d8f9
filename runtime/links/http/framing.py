"""The bytes of one HTTP/1.1 connection, cut into requests. It does no I/O.

Only requests of the plainest form are read here: a head of moderate size with no header twice, a body of a declared
length that is sent as it is, and a connection that stays open. Whatever is less plain is told apart, for a parser that
knows all of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

from runtime.links.http.heads import Alike, Head

MAX_HEAD_BYTES = 8190
MAX_HEADERS = 64
_END = b"\r\n\r\n"
_LENGTH = re.compile(r"[0-9]{1,15}")
_ELABORATE = ("Transfer-Encoding", "Content-Encoding", "Expect", "Upgrade", "Trailer", "Proxy-Connection")
_STAYS = "keep-alive"


class Framing:
    """`add` what was received; take a `head`, then as many bytes as its body has, then the next head.

    A head that is alike the one before it is not parsed again: a caller sends many requests that differ in their bodies
    only, or in their ids. Their `alike` is then the same object. So many bytes as are `held` wait here.
    """

    __slots__ = ("_bytes", "_last", "held")

    def __init__(self) -> None:
        self._bytes = b""
        self._last: Alike | None = None
        self.held = 0

    def add(self, data: bytes) -> None:
        self._hold(self._bytes + data if self._bytes else data)

    def head(self) -> Head | bytes | None:
        """The next request's head; all bytes at hand where it is not plain, or too long for it; None for too few."""
        last, held = self._last, self._bytes
        varied = last.varied(held) if last is not None else None
        if last is not None and varied is not None:
            self._hold(held[last.size :])
            return Head(last, varied)
        end = held.find(_END)
        if end < 0:
            return self.take(self.held) if self.held > MAX_HEAD_BYTES else None
        end += len(_END)
        last = self._last = _read_head(held[:end])
        if last is None:
            return self.take(self.held)
        self._hold(held[end:])
        return Head(last, last.varied(held) or {})

    def peek(self, count: int) -> bytes:
        """As `take`, but they stay."""
        return self._bytes[:count]

    def take(self, count: int) -> bytes:
        """Up to `count` bytes of what comes next."""
        taken = self._bytes[:count]
        self._hold(self._bytes[count:])
        return taken

    def _hold(self, rest: bytes) -> None:
        self._bytes, self.held = rest, len(rest)


class _Reader:
    """What the parser calls."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def _read_head(raw: bytes) -> Alike | None:
    """None for a head that is not plain, or no HTTP."""
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    headers = CIMultiDict(_texts(reader.headers))
    length = _content_length(headers)
    moderate = len(raw) <= MAX_HEAD_BYTES and len(headers) <= MAX_HEADERS and reader.target.isascii()
    once = len({name.lower() for name in headers}) == len(headers)
    whole = parser.get_http_version() == "1.1" and "Host" in headers and once
    # Not what the parser says: of a request without a body it has forgotten that by now.
    stays = headers.get("Connection", _STAYS).lower() == _STAYS
    if length is None or not (moderate and whole and stays):
        return None
    return Alike(raw, parser.get_method().decode(), reader.target.decode(), CIMultiDictProxy(headers), length)


def _texts(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    """Bytes that are no text become lone surrogates, as they do in aiohttp."""
    for name, value in headers:
        yield name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")


def _content_length(headers: CIMultiDict[str]) -> int | None:
    """0 where none is declared, None where the body ends otherwise or is not sent as it is."""
    length = headers.get("Content-Length", "0")
    return int(length) if _LENGTH.fullmatch(length) and not any(name in headers for name in _ELABORATE) else None
