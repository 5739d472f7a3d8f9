"""One request as the answer path sees it: its terms, its deadline, its body, and the times of its phases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from aiohttp import web

from contracts import headers
from contracts.deadlines import Deadline
from contracts.headers import Terms
from contracts.timing import TOTAL
from runtime.links.grants import ANYBODY, Grant
from runtime.links.hop import Hop
from runtime.links.upstream import Request

Clock = Callable[[], float]


class Call(msgspec.Struct, kw_only=True):
    """`hop` is who verifiably sent the request on, and so holds it; None for a caller from outside.

    `started_s` is when the body was there: what came before is the network's time, not this server's.
    """

    request_id: str
    model: str
    version: str
    terms: Terms
    deadline: Deadline
    hop: Hop | None
    body: bytes
    started_s: float
    clock: Clock
    rows: int = 0
    grant: Grant = ANYBODY
    phases_ms: dict[str, float] = msgspec.field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of its block to the phase `name`."""
        begun_s = self.clock()
        try:
            yield
        finally:
            self.phases_ms[name] = self.phases_ms.get(name, 0.0) + (self.clock() - begun_s) * 1000.0

    def narrow(self, microseconds: int) -> None:
        """Moves the deadline closer, for the protocol's own `timeout`; 0 is none."""
        if microseconds:
            own = Deadline.after(microseconds / 1000.0, now_s=self.started_s)
            self.deadline = min(self.deadline, own, key=lambda deadline: deadline.expires_at_s)

    def with_total(self, phases_ms: dict[str, float]) -> dict[str, float]:
        return {**phases_ms, TOTAL: (self.clock() - self.started_s) * 1000.0}

    def onward(self, request: web.Request) -> Request:
        """The request for another hop. Its body was decoded on arrival, so its encoding is not named any more."""
        sent = {name: value for name, value in request.headers.items() if name.lower() != "content-encoding"}
        sent[headers.REQUEST_ID] = self.request_id
        return Request(request.method, str(request.rel_url), sent, self.body)
