"""Whose chunk is sent next: nodes take turns, one chunk each, however much they ask for. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from contracts.messages import ChunkWant

MOST_OF_A_NODE = 256
"""What a node may have waiting, over all contents that it fetches at a time. It asks again for what is dropped."""


class Wanted(NamedTuple):
    """One chunk for one node."""

    node: str
    ask: int
    content: str
    number: int


class ChunkQueue:
    """Bounded by the number of nodes: what a node wants twice waits once, and above its bound the oldest goes."""

    def __init__(self, *, most_of_a_node: int = MOST_OF_A_NODE) -> None:
        self._most = most_of_a_node
        self._nodes: OrderedDict[str, OrderedDict[Wanted, None]] = OrderedDict()
        self.dropped = 0

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def add(self, want: ChunkWant) -> None:
        waiting = self._nodes.setdefault(want.node, OrderedDict())
        for number in want.chunks:
            waiting[Wanted(want.node, want.ask, want.content, number)] = None
        while len(waiting) > self._most:
            waiting.popitem(last=False)
            self.dropped += 1

    def take(self, most: int) -> list[Wanted]:
        """Up to `most` chunks, in turns over the nodes."""
        taken: list[Wanted] = []
        while self._nodes and len(taken) < most:
            node, waiting = self._nodes.popitem(last=False)
            wanted, _ = waiting.popitem(last=False)
            taken.append(wanted)
            if waiting:
                self._nodes[node] = waiting
        return taken

    def clear(self) -> None:
        self._nodes.clear()
