"""What the ways to nodes cost, as the client's own requests show it: for the router, which only knows distances."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from contracts import headers
from contracts.leases import MAX_MEASURED, MAX_MEASURED_MS
from contracts.timing import TOTAL, parse_server_timing
from foothill.client.upstreams import Reply, Upstream


class RoundTrips:
    """The shortest round trip to each leased node since they were last taken, in ms. Safe to share between threads."""

    def __init__(self) -> None:
        self._shortest_ms: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, upstream: Upstream, reply: Reply) -> None:
        """The time under way: hop time minus the node's own total. One that had to connect first tells too much."""
        if not upstream.leased or not reply.reused:
            return
        total_ms = parse_server_timing(reply.headers.get(headers.SERVER_TIMING)).get(TOTAL)
        if total_ms is not None:
            self.put_back({upstream.node: max(0.0, reply.elapsed_ms - total_ms)})

    def take(self) -> dict[str, float]:
        with self._lock:
            taken, self._shortest_ms = self._shortest_ms, {}
        return taken

    def put_back(self, measured_ms: Mapping[str, float]) -> None:
        with self._lock:
            for node, way_ms in measured_ms.items():
                if way_ms <= MAX_MEASURED_MS and (node in self._shortest_ms or len(self._shortest_ms) < MAX_MEASURED):
                    self._shortest_ms[node] = min(round(way_ms, 3), self._shortest_ms.get(node, way_ms))
