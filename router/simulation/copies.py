"""A request on its way: what its router asked, and the copies of it that went to nodes."""

from __future__ import annotations

from router.simulation.world import Request


class Asked:
    """One request at its router: its copies out there, and the nodes it has tried. `done` once it was answered."""

    __slots__ = ("done", "out", "request", "tried")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.out = 0
        self.tried: set[int] = set()
        self.done = False


class Copy:
    """One request as it was sent to one node; hedges and retries are further copies of it. `way_s` is one way."""

    __slots__ = ("arrived_s", "asked", "began_s", "ends_s", "expected_ms", "node", "sent_s", "way_s")

    def __init__(self, asked: Asked, node: int, sent_s: float, way_s: float, expected_ms: float) -> None:
        self.asked = asked
        self.node = node
        self.sent_s = sent_s
        self.way_s = way_s
        self.expected_ms = expected_ms
        self.arrived_s = self.began_s = self.ends_s = 0.0

    @property
    def size(self) -> float:
        return self.asked.request.size
