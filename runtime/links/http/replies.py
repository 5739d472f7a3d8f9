"""The bytes of one HTTP/1.1 answer, as they come. It does no I/O.

Heads and chunks are read by llhttp, which is strict. What ends a body is decided here, once: an answer that can be
understood in two ways makes one request's answer another's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import httptools
from multidict import CIMultiDict

from runtime.links.http.bulk import Bulk
from runtime.links.http.exchanges import Body
from runtime.links.http.spool import Spool, Spooling

MAX_HEAD_BYTES = 1 << 16
MAX_HEADERS = 128
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"[0-9]{1,15}")
_NO_BODY = (204, 304)
_MOST_CHUNKED = 2
"""So many times its body may chunks take."""
_SWITCHING = 101

Place = Callable[[bytes, int], "Bulk | Spooling"]
"""Of a body that begins so, and of which so many bytes have still to come."""
State = Literal["head", "length", "chunked", "to-the-end", "done"]


class BrokenReply(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """What came is no answer, or not a whole one."""


class LargeReply(Exception):  # noqa: N818 - as above
    """Its body has more bytes than are taken."""


class Reply:
    """One answer under way. `room` says where its next bytes go; `filled` and `ended` tell that some came, or that no
    more do. All three raise BrokenReply and LargeReply.

    `scratch` takes what is not plainly body; it may be everybody's. `place` says where the rest of a body goes whose
    length is known: in memory, if nobody says otherwise. `reusable`: whether the connection is good for
    another request, once it is `done`. `head` are the bytes of its head.
    """

    __slots__ = (
        "_body", "_bulk", "_chunked_bytes", "_held", "_max_body_bytes", "_method", "_parser", "_place", "_reader",
        "_scratch",
        "_tail", "head", "headers", "reusable", "state", "status",
    )  # fmt: skip

    def __init__(self, method: str, scratch: memoryview, *, max_body_bytes: int, place: Place | None = None) -> None:
        self._method = method
        self._scratch = scratch
        self._max_body_bytes = max_body_bytes
        self._place = place or self._in_memory
        self._held = b""
        self._bulk: Bulk | Spooling | None = None
        self._body: Body | Spool = b""
        self._chunked_bytes = 0
        self._tail = b""
        self._reader = _Reader()
        self._parser = httptools.HttpResponseParser(self._reader)
        self.state: State = "head"
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.reusable = False
        self.head = b""

    @property
    def begun(self) -> bool:
        """Whether any byte of it came."""
        return self.state != "head" or bool(self._held) or self.status > 0

    @property
    def plain(self) -> bool:
        """Whether its head says how long it is, and that is all there is to it."""
        return self.reusable and self.state in ("length", "done") and "Transfer-Encoding" not in self.headers

    @property
    def done(self) -> bool:
        return self.state == "done"

    @property
    def body(self) -> Body | Spool:
        """All of it, once it is done."""
        return self._body

    def room(self) -> memoryview:
        return self._bulk.room() if self._bulk is not None else self._scratch

    def filled(self, count: int) -> None:
        if self._bulk is not None:
            self._bulk.fill(count)
            if not self._bulk.left:
                self._body, self.state = self._bulk.body, "done"
        else:
            self.take(bytes(self._scratch[:count]))

    def ended(self) -> None:
        """The other side sends no more."""
        if self.state != "to-the-end":
            raise BrokenReply("the connection ended before the answer did")
        self.state = "done"

    def take(self, data: bytes) -> None:
        """These bytes came, and lie in no `room` of its own."""
        if self.state == "head":
            data = self._read_heads(self._held + data if self._held else data)
        if not data:
            return
        if self.state == "chunked":
            self._feed(data)
        elif self.state == "to-the-end":
            self._keep(data)
        else:
            raise BrokenReply("it goes on behind its end")

    def _read_heads(self, data: bytes) -> bytes:
        """What is behind the head, and is no body that is plainly so long."""
        while self.state == "head":
            end = data.find(_END)
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    raise BrokenReply(f"its head has more than {MAX_HEAD_BYTES} bytes")
                self._held = data
                return b""
            end += len(_END)
            self._read_head(data[:end])
            data = data[end:]
        self._held = b""
        return self._begin_bulk(data) if self.state == "length" else data

    def _read_head(self, head: bytes) -> None:
        reader, parser = self._reader, self._parser
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BrokenReply(f"it is no HTTP answer: {error}") from error
        self.status = parser.get_status_code()
        if not reader.heads or len(reader.headers) > MAX_HEADERS or self.status == _SWITCHING:
            raise BrokenReply("its head is not one that was asked for")
        if self.status < 200:  # a word on the way: the answer follows
            self._reader = _Reader()
            self._parser = httptools.HttpResponseParser(self._reader)
            return
        self.headers, self.head = _texts(reader.headers), head
        self.state = self._ends_by(reader.headers)
        self.reusable = self.state != "to-the-end" and parser.get_http_version() == "1.1" and _stays(self.headers)

    def _ends_by(self, headers: list[tuple[bytes, bytes]]) -> State:
        """RFC 9112, section 6.3. llhttp has refused both together, and a length twice."""
        if self._method == "HEAD" or self.status in _NO_BODY:
            return "done"
        named = {name.lower(): value for name, value in headers}
        codings = [value.strip().lower() for name, value in headers if name.lower() == b"transfer-encoding"]
        if codings:
            if codings != [b"chunked"] or b"content-length" in named:
                raise BrokenReply("its Transfer-Encoding is another than chunked")
            return "chunked"
        if b"content-length" not in named:
            return "to-the-end"
        if not _LENGTH.fullmatch(named[b"content-length"]):
            raise BrokenReply("its Content-Length is no number")
        return "length" if int(named[b"content-length"]) else "done"

    def _begin_bulk(self, data: bytes) -> bytes:
        length = int(self.headers["Content-Length"])
        if length > self._max_body_bytes:
            raise LargeReply
        if len(data) > length:
            raise BrokenReply("it goes on behind its end")
        if len(data) == length:
            self._body, self.state = data, "done"
        else:
            self._bulk = self._place(data, length - len(data))
        return b""

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BrokenReply(f"its chunks are none: {error}") from error
        self._chunked_bytes += len(data)
        if self._chunked_bytes > _MOST_CHUNKED * self._max_body_bytes + MAX_HEAD_BYTES:
            raise BrokenReply("its chunks are mostly no body")
        if reader.heads > 1 or len(reader.headers) > MAX_HEADERS:
            raise BrokenReply("it goes on behind its end")
        self._tail = (self._tail + data)[-len(_END) :]
        if reader.parts:
            self._keep(b"".join(reader.parts))
            reader.parts.clear()
        if reader.ends:
            self.state = "done"
            # llhttp does not say where it ended: what is behind it may be the beginning of something.
            self.reusable = self.reusable and self._tail == _END

    def _in_memory(self, first: bytes, left: int) -> Bulk:
        return Bulk(first, left, self._scratch, wanted=True)

    def _keep(self, data: bytes) -> None:
        body = self._body if isinstance(self._body, bytearray) else bytearray()
        body += data
        self._body = body
        if len(body) > self._max_body_bytes:
            raise LargeReply


class _Reader:
    """What the parser calls."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.heads = self.ends = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        self.ends += 1


def _texts(headers: list[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    """Bytes that are no text become lone surrogates."""
    return CIMultiDict(
        [(name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in headers]
    )


def _stays(headers: CIMultiDict[str]) -> bool:
    told = ",".join(headers.getall("Connection", ())).lower()
    return "close" not in [token.strip() for token in told.split(",")]
