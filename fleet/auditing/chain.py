"""A chain of entries: each carries the hash of itself and of the one before, so that none can be changed, left out or
put in later without changing the last hash, which whoever wants proof keeps elsewhere.

The hash of an entry is SHA-256 over the hash of the one before (64 hex digits), its number, its time, and its body's
bytes, a line each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from contracts.decoding import UNREADABLE
from fleet.auditing.entries import Body

ORIGIN = "0" * 64
"""What stands for the hash before the first."""

_DECODER = msgspec.json.Decoder(Body)


class Mark(msgspec.Struct, frozen=True):
    """How far a chain goes: the number and the hash of its last entry."""

    seq: int = 0
    hash: str = ORIGIN


START = Mark()


class Entry(msgspec.Struct, frozen=True):
    """`seq` counts from 1 without a gap, `at_s` is unix time, `body` the JSON of a `Body`."""

    seq: int
    at_s: float
    body: msgspec.Raw
    hash: str

    @property
    def mark(self) -> Mark:
        return Mark(self.seq, self.hash)


class BrokenChainError(Exception):
    """The log is not the one that was written."""


def link(before: Mark, at_s: float, body: Body) -> Entry:
    """The next entry."""
    data, seq = msgspec.json.encode(body), before.seq + 1
    return Entry(seq, float(at_s), msgspec.Raw(data), _hash(before.hash, seq, float(at_s), data))


def read(entry: Entry) -> Body:
    """Raises BrokenChainError."""
    try:
        body: Body = _DECODER.decode(entry.body)
    except UNREADABLE as error:
        raise BrokenChainError(f"entry {entry.seq} cannot be read: {error}") from error
    return body


def follow(entries: Iterable[Entry], since: Mark = START) -> Iterator[Entry]:
    """The same, each once it is proven to follow on the one before.

    Raises BrokenChainError that names the first that does not.
    """
    last = since
    for entry in entries:
        if entry.seq != last.seq + 1:
            raise BrokenChainError(f"entry {last.seq + 1} is missing: after {last.seq} comes {entry.seq}")
        if entry.hash != _hash(last.hash, entry.seq, entry.at_s, bytes(entry.body)):
            raise BrokenChainError(f"entry {entry.seq} was changed, or one before it: its hash is not its content's")
        last = entry.mark
        yield entry


def _hash(before: str, seq: int, at_s: float, body: bytes) -> str:
    return hashlib.sha256(b"%s\n%d\n%r\n%s" % (before.encode(), seq, at_s, body)).hexdigest()
