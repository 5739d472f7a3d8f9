"""The short way through the router: requests like others before them are sent on, and answered, without tasks.

Only what differs between two of them is looked at for each. What becomes of them is in `arrivals.py`. What is out of
the ordinary, a node that fails, an answer that is doubted, an audit that was drawn, goes on as `proxy.py` tells it.
"""

from __future__ import annotations

from collections.abc import Callable

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.arrivals import Arrivals
from router.budgets import Purse
from router.calls import Calls
from router.fields import Field, Fields
from router.flights import Begun, Flight
from router.lanes import OWN, Lane, Way
from router.node import Node
from router.nodes import Nodes
from router.proxy import Proxy
from router.seeing.witness import Witness
from router.shares import share_ms
from router.tries import Tries
from runtime.links.access.admission import Admission
from runtime.links.access.hop import HopSigner
from runtime.links.escalation.holder import Holder
from runtime.links.http.accounts import Accounts
from runtime.links.http.bodies import too_slow
from runtime.links.http.exchanges import Body, Clock, Known, Varied
from runtime.links.http.hot_routes import GiveUp, Turn
from runtime.links.http.rendering import milliseconds
from runtime.links.http.spool import SPOOLED_BYTES
from runtime.links.http.upstream import Upstreams, UpstreamUnreachable
from runtime.links.process.alarm import Alarm


class _Short(Way):
    """`runtime.links.http.hot_routes.Shortcut` for them."""

    __slots__ = ("_ways",)

    def __init__(self, ways: Ways, request: Known, terms: Terms, field: Field, token: str) -> None:
        super().__init__(request, terms, field, token)
        self._ways = ways

    def start(self, body: Body, turn: Turn, begun: Begun | None = None) -> GiveUp | None:
        ways = self._ways
        if len(body) > ways.max_body_bytes:
            return None
        begun = begun or ways.begin(self, turn)
        return ways.send(self, body, turn, begun) if begun is not None else None

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        begun = self._ways.begin(self, turn) if body_bytes <= self._ways.max_body_bytes else None
        return Coming(self._ways, self, turn, begun) if begun is not None else None


class Coming:
    """`runtime.links.http.hot_routes.Coming`: a request whose body has still to come."""

    __slots__ = ("_begun", "_turn", "_way", "_ways")

    def __init__(self, ways: Ways, way: _Short, turn: Turn, begun: Begun) -> None:
        self._ways = ways
        self._way = way
        self._turn = turn
        self._begun = begun
        ways.accounts.in_flight.count += 1
        ways.awaited.set(self, begun.expires_at_s)

    @property
    def waited_s(self) -> float:
        return self._ways.clock() - self._begun.arrived_s

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        self._ways.awaited.clear(self)
        self._ways.accounts.in_flight.count -= 1
        self._begun.began_s = self._ways.clock()
        return self._way.start(body, turn, self._begun)

    def give_up(self) -> None:
        self._ways.awaited.clear(self)
        self._ways.arrivals.left(self._begun.arrived_s, self._way, self._turn)

    def late(self) -> None:
        self._turn.done(self._ways.arrivals.refusal(self._way, self._turn, too_slow(), self._begun.arrived_s))


def _own_lines(varied: Varied) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in varied.items() if name.lower() in OWN])


def _trace(way: Way, turn: Turn) -> str:
    return turn.varied.get(headers.TRACEPARENT, way.asked.traceparent)


class Ways:
    """One route's. Without `admission` nobody is asked. `clock` is monotonic, `wall` unix time, both in seconds."""

    def __init__(
        self,
        calls: Calls,
        proxy: Proxy,
        nodes: Nodes,
        fields: Fields,
        holder: Holder,
        upstreams: Upstreams,
        tries: Tries,
        witness: Witness,
        admission: Admission | None,
        purse: Purse,
        accounts: Accounts,
        *,
        hop_key: bytes,
        max_body_bytes: int,
        default_deadline_ms: float,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self.arrivals = Arrivals(calls, proxy, nodes, holder, tries, witness, purse, accounts, clock=clock, wall=wall)
        self._fields = fields
        self._upstreams = upstreams
        self._tries = tries
        self._admission = admission
        self._signer = HopSigner(hop_key, "router")
        self._default_deadline_ms = default_deadline_ms
        self._wall = wall
        self._spans = witness.spans
        self.awaited: Alarm[Coming] = Alarm(Coming.late, clock)
        self.accounts = accounts
        self.max_body_bytes = min(max_body_bytes, SPOOLED_BYTES)
        self.clock = clock

    def prepare(self, request: Known) -> _Short | None:
        """`runtime.links.http.hot_routes.Prepare`. None for what only the story knows how to answer: hedges too."""
        try:
            terms = headers.parse_terms(request.headers)
        except FoothillError:
            return None
        if terms.escalation == "always" or terms.idempotency_key or "Prefer" in request.headers:
            return None
        token = self._admission.token_of(request.headers) if self._admission is not None else ""
        return _Short(self, request, terms, self._field(request, terms), token)

    def _field(self, request: Known, terms: Terms) -> Field:
        version = request.params.get("version", "")
        return self._fields.of(request.params["model"], terms.residency, version, terms.priority, terms.capabilities)

    def begin(self, way: Way, turn: Turn) -> Begun | None:
        """None where it is left to the story, which records spans too, and where it was refused."""
        arrived_s = self.clock()
        if self._spans is not None and self._spans.wants(_trace(way, turn), turn.request_id):
            return None
        if self._admission is not None and not self._admitted(way, turn, arrived_s):
            return None
        try:
            terms = headers.renewed(way.terms, turn.varied) if turn.varied else way.terms
        except FoothillError:
            return None
        deadline_s = (terms.deadline_ms or self._default_deadline_ms) / 1000.0
        return Begun(arrived_s, terms, arrived_s + deadline_s, arrived_s)

    def _admitted(self, way: Way, turn: Turn, arrived_s: float) -> bool:
        """False where the story has to ask, and where the caller was refused."""
        assert self._admission is not None
        try:
            grant = self._admission.token_grant(way.token, way.model)
            if grant is None:
                return False
            if grant is not way.grant:
                terms = grant.narrow(way.asked)
                way.take(grant, terms, self._field(way.request, terms))
        except FoothillError as error:
            self.accounts.in_flight.count += 1
            turn.done(self.arrivals.refusal(way, turn, error, arrived_s, admitted=False))
            return False
        turn.grant = grant
        return True

    def send(self, way: Way, body: Body, turn: Turn, begun: Begun) -> GiveUp | None:
        """None where no node can be asked just so: the story says what is to be done."""
        now_s = begun.began_s
        left_ms = (begun.expires_at_s - now_s) * 1000.0
        picked = way.field.pick(now_s, left_ms, len(body)) if left_ms > 0 else None
        if picked is None:
            return None
        node, expected_ms = picked.node, picked.expected_ms
        lane = way.lanes.get(node) or self._lane(way, node)
        wire = lane.pool.take() if lane is not None else None
        if lane is None or wire is None:
            way.lanes.pop(node, None)
            way.field.keep(picked)
            return None
        allowed_ms = share_ms(expected_ms, left_ms, well=node.well)
        head = lane.head + self._own(turn, len(body), allowed_ms)
        flight = Flight(self.arrivals, way, turn, body, begun, node, wire, wire.used, expected_ms, allowed_ms)
        self._tries.begin(now_s)
        node.reserve(now_s)
        self.accounts.in_flight.count += 1
        self.arrivals.late.set(flight, now_s + allowed_ms / 1000.0)
        flight.sent_s = self.clock()
        wire.ask("POST", head, body, flight, spools=not way.predicts)
        return flight.give_up

    def _lane(self, way: Way, node: Node) -> Lane | None:
        try:
            return way.lane(node, self._upstreams.place(node.identity.url))
        except UpstreamUnreachable:
            return None

    def _own(self, turn: Turn, body_bytes: int, allowed_ms: float) -> bytes:
        """A request's own end of its head. Values of the same width in every request: heads of one length are read
        faster."""
        request_id, varied = turn.request_id, turn.varied
        own = _own_lines(varied) if varied else ""
        mark = self._signer.sign(request_id, self._wall())
        return (
            f"{own}Content-Length: {body_bytes}\r\n{headers.REQUEST_ID}: {request_id}\r\n{headers.HOP}: {mark}\r\n"
            f"{headers.DEADLINE_MS}: {milliseconds(allowed_ms)}\r\n\r\n"
        ).encode()
