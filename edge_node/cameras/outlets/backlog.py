"""What one server has still to be told, in order and bounded: in memory, and in a journal for the node's next life."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from edge_node.cameras.outlets.journal import Journal, Waiting

MOST_WAITING, MOST_WAITING_BYTES = 10_000, 16 << 20
MOST_MESSAGES, MOST_BYTES = 100, 256 << 10
"""In one batch; a message that is larger than that goes alone."""


class Backlog:
    """Where there are too many, the oldest that are in no batch give way, and `dropped` counts them."""

    def __init__(self, journal: Journal, most: int = MOST_WAITING, most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._journal = journal
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._batch: list[Waiting] = []
        self._news, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._batch) + len(self._waiting)

    async def open(self) -> None:
        """What an earlier life has left comes first."""
        left = await self._journal.open() or []
        self._waiting.extendleft(reversed(left))
        self._bytes += sum(len(old.body) for old in left)
        self._bound()

    async def close(self) -> int:
        """How many messages are lost: those that the disk did not take."""
        await self._journal.close()
        lost = self._journal.unkept
        self.dropped += lost
        return lost

    def put(self, body: bytes) -> None:
        self._waiting.append(self._journal.keep(body))
        self._bytes += len(body)
        self._bound()

    async def take(self) -> Sequence[bytes]:
        """The next batch, once there is one. It waits until it is `over`."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        self._batch = next_batch(self._waiting)
        bodies = [message.body for message in self._batch]
        self._bytes -= sum(map(len, bodies))
        return bodies

    def over(self, *, taken: bool) -> None:
        """The batch was taken, or is given up."""
        if not taken:
            self.dropped += len(self._batch)
        self._journal.forget(message.number for message in self._batch)
        self._batch = []
        if not self._waiting:
            self._empty.set()

    async def emptied(self) -> None:
        await self._empty.wait()

    def _bound(self) -> None:
        while len(self._waiting) > self._most or (self._bytes > self._most_bytes and len(self._waiting) > 1):
            oldest = self._waiting.popleft()
            self._bytes -= len(oldest.body)
            self._journal.forget((oldest.number,))
            self.dropped += 1
        if self._waiting:
            self._empty.clear()
            self._news.set()


def next_batch(waiting: deque[Waiting]) -> list[Waiting]:
    """Takes the oldest out: as many as one batch may hold, and at least one."""
    batch = [waiting.popleft()]
    size = len(batch[0].body) + 2
    while waiting and len(batch) < MOST_MESSAGES and size + len(waiting[0].body) + 1 <= MOST_BYTES:
        batch.append(waiting.popleft())
        size += len(batch[-1].body) + 1
    return batch
