"""One request as the answer path sees it: its terms, its deadline, its body, and the times of its phases."""

from __future__ import annotations

import msgspec

from contracts import headers
from contracts.deadlines import Deadline
from contracts.headers import Terms
from contracts.timing import TOTAL
from runtime.links.access.grants import Grant
from runtime.links.access.hop import Hop
from runtime.links.http.accounts import Account
from runtime.links.http.exchanges import Body, Incoming
from runtime.links.http.upstream import Request
from runtime.serving.models.hosting import Served
from runtime.serving.models.oip import Asked

_NOTHING_YET = Asked({}, (), "", 0, 0)


class Call(msgspec.Struct):
    """`hop` is who verifiably sent the request on, and so holds it; None for a caller from outside.

    `started_s` is when the body was there: what came before is the network's time, not this server's. `ran_s` is when
    the model had answered. `asked` is what the body says, once it was read.
    """

    request: Incoming
    model: str
    version: str
    terms: Terms
    deadline: Deadline
    hop: Hop | None
    grant: Grant
    served: Served
    account: Account
    phases_ms: dict[str, float]
    body: Body = b""
    started_s: float = 0.0
    ran_s: float = 0.0
    rows: int = 0
    asked: Asked = _NOTHING_YET

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def take(self, body: Body, now_s: float) -> None:
        """The whole body has come."""
        self.body = body
        self.started_s = self.account.started_s = now_s

    def decoded(self, now_s: float) -> None:
        self.phases_ms["decode"] = (now_s - self.started_s) * 1000.0

    def ask(self, asked: Asked) -> None:
        """The body was read. The protocol's own `timeout`, where there is one, moves the deadline closer."""
        self.asked = asked
        self.rows = len(next(iter(asked.inputs.values()))) if self.served.batches else 1
        if asked.timeout_us:
            own = Deadline.after(asked.timeout_us / 1000.0, now_s=self.started_s)
            self.deadline = min(self.deadline, own, key=lambda deadline: deadline.expires_at_s)

    def with_total(self, phases_ms: dict[str, float], now_s: float) -> dict[str, float]:
        return {**phases_ms, TOTAL: (now_s - self.started_s) * 1000.0}

    def onward(self) -> Request:
        """The request for another hop. Its body was decoded on arrival, so its encoding is not named any more."""
        request = self.request
        sent = {name: value for name, value in request.headers.items() if name.lower() != "content-encoding"}
        sent[headers.REQUEST_ID] = request.request_id
        return Request(request.method, request.target, sent, bytes(self.body))
