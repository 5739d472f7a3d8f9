"""Where bytes go that are read from a socket: those of one large body straight into their place."""

from __future__ import annotations

from runtime.links.http.exchanges import Body

_LEAST_BYTES = 1 << 16
_GROWTH = 4


class Buffer:
    """Where the bytes of many connections are read, one after another: whoever reads takes them out before the next.
    They are there as `bytes`, and as a `view` of the same."""

    __slots__ = ("bytes", "view")

    def __init__(self, size: int = 1 << 18) -> None:
        self.bytes = bytearray(size)
        self.view = memoryview(self.bytes)


class Bulk:
    """The place of a body of which `left` bytes have still to come behind the `first` ones. `scratch` takes those that
    nobody wants: of a body that is not `wanted` nothing is kept."""

    __slots__ = ("_begins", "_body", "_filled", "_scratch", "left")

    def __init__(self, first: bytes, left: int, scratch: memoryview, *, wanted: bool) -> None:
        self._filled = len(first)
        self._scratch = scratch
        self._body: bytearray | None = None
        self._begins = 0
        self.left = left
        if wanted:
            # No more than some times what has come: a length is soon declared.
            self._body = bytearray(min(self._filled + left, max(_LEAST_BYTES, _GROWTH * self._filled)))
            self._body[: self._filled] = first

    @classmethod
    def behind_head(cls, place: bytearray, head_bytes: int, filled: int, scratch: memoryview) -> Bulk:
        """Of a body that comes into the same place as its head, which has room for all of it."""
        bulk = cls(b"", len(place) - filled, scratch, wanted=False)
        bulk._body, bulk._begins, bulk._filled = place, head_bytes, filled
        return bulk

    @property
    def body(self) -> Body:
        """What has come of it, once all has."""
        if self._body is None:
            return b""
        return memoryview(self._body)[self._begins :] if self._begins else self._body

    def peek(self, count: int) -> bytes:
        """The first so many bytes, as far as they are there."""
        return b"" if self._body is None else bytes(self._body[self._begins : min(self._begins + count, self._filled)])

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._body = None

    def room(self) -> memoryview:
        """Where the next bytes go. Let go of it before the next one is asked for."""
        body = self._body
        if body is None:
            return self._scratch[: self.left]
        if self._filled == len(body):
            body.extend(bytes(min(self.left, (_GROWTH - 1) * len(body))))
        return memoryview(body)[self._filled :]

    def fill(self, count: int) -> None:
        """So many bytes were put there."""
        self._filled += count
        self.left -= count
