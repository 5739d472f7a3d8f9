"""From an HTTP request to a call: the caller's terms, its address, and the request as upstreams get it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from contracts import headers
from contracts.deadlines import Deadline
from contracts.headers import Terms
from contracts.places import Place
from router.places.client_address import Address, Network, client_address
from router.places.geo import Geo
from router.places.located import Caller, Located
from router.tries import Call
from runtime.links.access.grants import ANYBODY
from runtime.links.access.hop import sign_hop
from runtime.links.http.exchanges import Body, Incoming
from runtime.links.http.spool import SPOOLED_BYTES, Spool
from runtime.links.http.upstream import Request

MAX_QUESTION_BYTES = 65_536


class Calls:
    """Reads requests. `clock` is monotonic, `wall` unix time, both in seconds; `max_body_bytes` after decompression."""

    def __init__(
        self,
        *,
        hop_key: bytes,
        default_deadline_ms: float,
        max_body_bytes: int,
        trusted: tuple[Network, ...],
        geo: Geo,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._hop_key = hop_key
        self._default_deadline_ms = default_deadline_ms
        self._max_body_bytes = max_body_bytes
        self._trusted = trusted
        self._geo = geo
        self._clock = clock
        self._wall = wall

    def terms(self, request: Incoming) -> tuple[Terms, Deadline]:
        """Within what the caller is granted; the deadline counts from its arrival.

        Raises FoothillError `bad_header` or `residency_denied`.
        """
        terms = (request.grant or ANYBODY).narrow(headers.parse_terms(request.headers))
        arrived_s = self._clock() - request.waited_s
        deadline = Deadline.after(terms.deadline_ms or self._default_deadline_ms, now_s=arrived_s)
        return msgspec.structs.replace(terms, request_id=request.request_id), deadline

    async def read(self, request: Incoming, terms: Terms, deadline: Deadline) -> Call:
        """The call with its whole body: a node never waits for a caller that sends slowly."""
        body = await request.store(self._max_body_bytes, SPOOLED_BYTES, deadline, self._clock)
        grant, model = request.grant or ANYBODY, request.params["model"]
        sent = self.marked(request, terms, request.target, body)
        return Call(sent, terms, deadline, model, grant.tenant, grant.allowance, request.params.get("version", ""))

    async def read_question(self, request: Incoming, deadline: Deadline) -> Body:
        """A small body that is meant for the router itself."""
        return await request.read(MAX_QUESTION_BYTES, deadline, self._clock)

    def question(self, request: Incoming, model: str, path: str, version: str = "") -> Call:
        """A GET of `path`, about `model`, under the terms of the request that makes the router ask it."""
        terms, deadline = self.terms(request)
        asked = msgspec.structs.replace(self.marked(request, terms, path, b""), method="GET")
        return Call(asked, terms, deadline, model, version=version)

    def marked(self, request: Incoming, terms: Terms, path: str, body: Body | Spool) -> Request:
        """Few of the caller's headers, the request's id, and the router's mark."""
        sent = headers.relayed(request.headers, headers.RELAYED_IN) | terms.claim()
        sent[headers.REQUEST_ID] = terms.request_id
        if terms.traceparent:
            sent[headers.TRACEPARENT] = terms.traceparent
        sent[headers.HOP] = sign_hop(self._hop_key, "router", terms.request_id, self._wall())
        return (
            Request(request.method, path, sent, spool=body)
            if isinstance(body, Spool)
            else Request(request.method, path, sent, bytes(body))
        )

    def address(self, request: Incoming) -> Address | None:
        told, told_too = (request.headers.getall(name, ()) for name in ("X-Forwarded-For", "Forwarded"))
        return client_address(request.remote, list(told), self._trusted, list(told_too))

    def caller(self, address: Address | None, place: Place | None) -> Caller:
        """Who calls from `address`, and is at `place` by its own account; None asks GeoIP."""
        located = Located(place, 0.0, "caller") if place is not None else self._geo.locate(address)
        return Caller(address, located)
