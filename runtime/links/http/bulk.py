"""The bytes of one body, read from the socket straight into their place."""

from __future__ import annotations

from runtime.links.http.exchanges import Body

_LEAST_BYTES = 1 << 16
_GROWTH = 4


class Bulk:
    """The place of a body of which `left` bytes have still to come behind the `first` ones. `scratch` takes those that
    nobody wants: of a body that is not `wanted` nothing is kept."""

    __slots__ = ("_body", "_filled", "_scratch", "left")

    def __init__(self, first: bytes, left: int, scratch: memoryview, *, wanted: bool) -> None:
        self._filled = len(first)
        self._scratch = scratch
        self._body: bytearray | None = None
        self.left = left
        if wanted:
            # No more than some times what has come: a length is soon declared.
            self._body = bytearray(min(self._filled + left, max(_LEAST_BYTES, _GROWTH * self._filled)))
            self._body[: self._filled] = first

    @property
    def body(self) -> Body:
        return b"" if self._body is None else self._body

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
