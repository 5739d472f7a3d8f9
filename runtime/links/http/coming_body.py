"""The body of the request that a connection is at, while it comes."""

from __future__ import annotations

from collections.abc import Callable

from runtime.links.http.bulk import Bulk
from runtime.links.http.exchanges import Body
from runtime.links.http.framing import Framing
from runtime.links.http.hot_request import Deliver
from runtime.links.http.spool import Spool, Spooling


class ComingBody:
    """Of so many bytes that are `left` to come some may be in the `framing`. Once somebody wants them, or nobody does
    any more, the others are read into the room of its `bulk`.

    `hold` is told to keep the sender back, or to let it go on. `scratch` takes what nobody wants.
    """

    __slots__ = ("_begun", "_deliver", "_framing", "_hold", "_scratch", "_to_disk", "bulk", "left")

    def __init__(self, framing: Framing, scratch: memoryview, hold: Callable[[bool], None]) -> None:
        self._framing = framing
        self._scratch = scratch
        self._hold = hold
        self._deliver: Deliver | None = None
        self._to_disk = False
        self._begun: Bulk | None = None
        self.bulk: Bulk | Spooling | None = None
        self.left = 0

    @property
    def wanted(self) -> bool:
        return self._deliver is not None

    def begin(self, bulk: Bulk) -> None:
        """Some of it is in its place already."""
        self._begun, self.left = bulk, bulk.left

    def peek(self, count: int) -> bytes:
        """The first so many bytes, as far as they are here."""
        return self._framing.peek(count) if self._begun is None else self._begun.peek(count)

    def want(self, deliver: Deliver, *, to_disk: bool) -> None:
        """All of it, once it is here."""
        self._deliver, self._to_disk = deliver, to_disk

    def forget(self) -> None:
        """Nobody wants it any more."""
        self._deliver = None
        if self.bulk is not None:
            self.bulk.drop()

    def end(self) -> None:
        """No more of it comes."""
        self.bulk = self._begun = self._deliver = None

    def fetch(self) -> None:
        """It goes where it is wanted, or nowhere."""
        first, begun = self._framing.take(self.left), self._begun
        self._begun = None
        self.left -= len(first)
        if begun is not None:
            self._go_on(begun, first)
        elif not self.left:
            self._hand_on(first)
        elif self._to_disk and self._deliver is not None:
            self.bulk = Spooling(first, self.left, self._scratch, hold=self._hold, failed=self._disk_failed)
        else:
            self.bulk = Bulk(first, self.left, self._scratch, wanted=self.wanted)

    def fill(self, count: int) -> None:
        """So many bytes were read into its room."""
        bulk = self.bulk
        assert bulk is not None
        bulk.fill(count)
        self.left = bulk.left
        if not self.left:
            self.bulk = None
            self._hand_on(bulk.body)

    def _go_on(self, bulk: Bulk, first: bytes) -> None:
        self.bulk = bulk
        bulk.room()[: len(first)] = first
        if not self.wanted:
            bulk.drop()
        self.fill(len(first))

    def _disk_failed(self) -> None:
        """Whoever waits for it is told now: the rest is read for nothing."""
        bulk, deliver = self.bulk, self._deliver
        if isinstance(bulk, Spooling) and deliver is not None:
            self._deliver = None
            deliver(bulk.body)

    def _hand_on(self, body: Body | Spool) -> None:
        deliver, self._deliver, self._to_disk = self._deliver, None, False
        if deliver is not None:
            deliver(body)
