"""The heads of plain requests, and which of them are alike but for the values of a few headers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from contracts import headers as names
from runtime.links.http.exchanges import Varied

VARIED = (names.REQUEST_ID, names.HOP, names.DEADLINE_MS, names.IDEMPOTENCY_KEY, names.TRACEPARENT)
"""What callers and hops say anew with every request."""
_VARIED = {name.lower().encode(): name for name in VARIED}
_VISIBLE = re.compile(rb"[!-~](?:[ -~]*[!-~])?")
"""A value that ends where it seems to: no line break in it, and no blanks around it, which a parser would strip."""
_NOTHING: Final[Varied] = {}


class _Span(NamedTuple):
    """Where the value of a header lies in the bytes of a head."""

    name: str
    start: int
    end: int


class Alike:
    """What heads have in common that are of the same length and differ in the values of VARIED headers alone.

    `target` is the path as it was sent; `content_length`: so many bytes of body follow.
    """

    __slots__ = ("_headers", "_pieces", "_spans", "content_length", "method", "size", "target")

    def __init__(self, raw: bytes, method: str, target: str, headers: CIMultiDictProxy[str], length: int) -> None:
        self.method = method
        self.target = target
        self.content_length = length
        self.size = len(raw)
        self._headers = headers
        self._spans = _spans(raw, headers)
        self._pieces = _pieces(raw, self._spans)

    def headers(self, varied: Varied) -> CIMultiDictProxy[str]:
        """Those of a head with these values."""
        if not varied:
            return self._headers
        own = CIMultiDict(self._headers)
        for name, value in varied.items():
            own[name] = value
        return CIMultiDictProxy(own)

    def raw(self, varied: Varied) -> bytes:
        """All bytes of a head with these values."""
        pieces, values = [piece for _, piece in self._pieces], [value.encode() for value in varied.values()]
        return b"".join([part for both in zip(pieces, [*values, b""], strict=True) for part in both])

    def varied(self, data: bytes | bytearray) -> Varied | None:
        """The values in `data` where it begins with a head that is alike, else None."""
        if not self._spans:
            return _NOTHING if data.startswith(self._pieces[0][1]) else None
        for start, piece in self._pieces:
            if not data.startswith(piece, start):
                return None
        values = {}
        for name, start, end in self._spans:
            value = data[start:end]
            if not _VISIBLE.fullmatch(value):
                return None
            values[name] = value.decode("ascii")
        return values


class Head(NamedTuple):
    """The head of one request: `varied` are its own values."""

    alike: Alike
    varied: Varied


def _spans(raw: bytes, headers: CIMultiDictProxy[str]) -> Sequence[_Span]:
    """None where what stands in the bytes is not plainly what was parsed."""
    found = [*_lines(raw)]
    values = [(name, raw[start:end]) for name, start, end in found]
    plain = all(_VISIBLE.fullmatch(value) and value.decode() == headers.get(name) for name, value in values)
    return found if plain else ()


def _lines(raw: bytes) -> Iterator[_Span]:
    start = raw.find(b"\r\n") + 2
    while (end := raw.find(b"\r\n", start)) > start:
        name, _, value = raw[start:end].partition(b":")
        known = _VARIED.get(name.lower())
        if known is not None and value.strip(b" \t"):
            at = start + len(name) + 1 + len(value) - len(value.lstrip(b" \t"))
            yield _Span(known, at, at + len(value.strip(b" \t")))
        start = end + 2


def _pieces(raw: bytes, spans: Sequence[_Span]) -> Sequence[tuple[int, bytes]]:
    """What lies between the spans, with where it begins."""
    starts = [0, *(span.end for span in spans)]
    ends = [*(span.start for span in spans), len(raw)]
    return [(start, raw[start:end]) for start, end in zip(starts, ends, strict=True)]
