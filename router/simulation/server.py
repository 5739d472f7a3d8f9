"""One simulated node: requests run in the order they came, and its answers tell its load as a real node's do."""

from __future__ import annotations

from collections import deque

from contracts import headers
from contracts.messages import Load
from contracts.timing import TOTAL, format_server_timing
from router.simulation.copies import Copy

_MEMORY = 0.9
"""Of the recent means that a node tells, as `runtime/serving/models/hosting.py` keeps them."""


class Server:
    """`mean_ms` is what a request of size 1 takes, `slow` how many times as long it takes now.

    Whoever drives it makes `end` happen at the `ends_s` of each copy that began.
    """

    def __init__(self, name: str, mean_ms: float, lanes: int = 1) -> None:
        self.name = name
        self.mean_ms = mean_ms
        self.slow = 1.0
        self.failing = False
        self.waiting: deque[Copy] = deque()
        self.running: list[Copy] = []
        self._lanes = lanes
        self._queue_ms = 0.0
        self._service_ms = 0.0

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.running)

    def arrive(self, copy: Copy, now_s: float) -> Copy | None:
        """The copy, where it begins at once."""
        copy.arrived_s = now_s
        if len(self.running) < self._lanes:
            return self._begin(copy, now_s)
        self.waiting.append(copy)
        return None

    def end(self, copy: Copy, now_s: float) -> Copy | None:
        """The copy that begins in its place, if any."""
        self.running.remove(copy)
        self._queue_ms += (1 - _MEMORY) * ((copy.began_s - copy.arrived_s) * 1000.0 - self._queue_ms)
        self._service_ms += (1 - _MEMORY) * ((now_s - copy.began_s) * 1000.0 - self._service_ms)
        return self._begin(self.waiting.popleft(), now_s) if self.waiting else None

    def turn(self, slow: float, now_s: float) -> list[Copy]:
        """Is so many times as slow from now on; the copies that therefore end at another time."""
        changed = self.running if slow != self.slow else []
        for copy in changed:
            copy.ends_s = now_s + (copy.ends_s - now_s) * slow / self.slow
        self.slow = slow
        return list(changed)

    def work_ms(self, now_s: float) -> float:
        """Until it has done all that is there, at its present pace."""
        left_ms = sum([copy.ends_s - now_s for copy in self.running]) * 1000.0
        waiting = sum([copy.size for copy in self.waiting]) if self.waiting else 0.0
        return (left_ms + waiting * self.mean_ms * self.slow) / self._lanes

    def told(self, copy: Copy, now_s: float) -> dict[str, str]:
        """The headers of its answer as it leaves; the request is still counted."""
        queue_ms, infer_ms = (copy.began_s - copy.arrived_s) * 1000.0, (now_s - copy.began_s) * 1000.0
        timing = {"queue": queue_ms, "infer": infer_ms, TOTAL: queue_ms + infer_ms}
        load = f"in_flight={self.in_flight};queue_ms={self._queue_ms:.3f};service_ms={self._service_ms:.3f}"
        return {headers.SERVER_TIMING: format_server_timing(timing), headers.LOAD: load}

    def load(self) -> Load:
        """What it tells on MQTT."""
        return Load(self.name, 1, self.in_flight, self._queue_ms, self._service_ms)

    def _begin(self, copy: Copy, now_s: float) -> Copy:
        copy.began_s = now_s
        copy.ends_s = now_s + copy.size * self.mean_ms * self.slow / 1000.0
        self.running.append(copy)
        return copy
