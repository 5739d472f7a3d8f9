"""The short way through the router: requests like others before them are sent on, and answered, without tasks.

Only what differs between two of them is looked at for each. What is out of the ordinary, a node that fails, an answer
that is doubted, an audit that was drawn, goes on as `proxy.py` tells it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from contracts import headers
from contracts.circuits import blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.escalation import Verdict
from contracts.headers import Terms
from contracts.predictions import with_reason
from contracts.timing import TOTAL, across_hop, format_server_timing, parse_server_timing
from router.answers import settled_answer
from router.calls import Calls
from router.fields import Field, Fields
from router.node import Ending, Node
from router.nodes import Nodes
from router.proxy import Proxy
from router.tries import Call, Trail, Tries, judge, share_ms
from runtime.links.access.hop import sign_hop
from runtime.links.escalation.holder import Holder, evidence_of
from runtime.links.http.accounts import CLIENT_GONE, Account, Accounts
from runtime.links.http.bodies import too_slow
from runtime.links.http.exchanges import Body, Clock, Fixed, Known, Outgoing, header_lines
from runtime.links.http.hot_routes import GiveUp, Turn
from runtime.links.http.replies import Reply
from runtime.links.http.upstream import Answer, Place, Upstreams, UpstreamUnreachable, milliseconds
from runtime.links.http.wires import TOO_LARGE, Wire
from runtime.links.process.alarm import Alarm
from runtime.links.process.few import Few

_VARIED = frozenset(name.lower() for name in (headers.TRACEPARENT, headers.IDEMPOTENCY_KEY))
_FIXED = (
    "Content-Type",
    "Content-Encoding",
    "Inference-Header-Content-Length",
    headers.MODEL,
    headers.DIGEST,
    headers.STRATUM,
)
"""What many of a node's answers say alike, and is passed on."""


class Way:
    """`runtime.links.http.hot_routes.Shortcut` for the requests with one head.

    `lines` are the headers that all of them are sent on with, as they go over the wire.
    """

    __slots__ = ("_ways", "field", "first", "lines", "model", "predicts", "request", "terms")

    def __init__(self, ways: Ways, request: Known, terms: Terms, field: Field) -> None:
        self._ways = ways
        self.field = field
        self.request = request
        self.terms = terms
        self.model = request.params["model"]
        self.predicts = request.target.startswith("/v1/predict/")
        sent = headers.relayed(request.headers, headers.RELAYED_IN) | terms.claim()
        self.lines = header_lines({name: value for name, value in sent.items() if name.lower() not in _VARIED})
        self.first = f"{request.method} {request.target} HTTP/1.1\r\n"

    def start(self, body: Body, turn: Turn, begun: Begun | None = None) -> GiveUp | None:
        if len(body) > self._ways.max_body_bytes:
            return None
        begun = begun or self._ways.begin(self, turn)
        return self._ways.send(self, body, turn, begun) if begun is not None else None

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        begun = self._ways.begin(self, turn) if body_bytes <= self._ways.max_body_bytes else None
        return Coming(self._ways, self, turn, begun) if begun is not None else None


class Begun(NamedTuple):
    """Since when a request is here, on which terms, and until when."""

    arrived_s: float
    terms: Terms
    deadline: Deadline


class Coming:
    """`runtime.links.http.hot_routes.Coming`: a request whose body has still to come."""

    __slots__ = ("_begun", "_turn", "_way", "_ways")

    def __init__(self, ways: Ways, way: Way, turn: Turn, begun: Begun) -> None:
        self._ways = ways
        self._way = way
        self._turn = turn
        self._begun = begun
        ways.accounts.in_flight.count += 1
        ways.awaited.set(self, begun.deadline.expires_at_s)

    @property
    def waited_s(self) -> float:
        return self._ways.clock() - self._begun.arrived_s

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        self._ways.awaited.clear(self)
        self._ways.accounts.in_flight.count -= 1
        return self._way.start(body, turn, self._begun)

    def give_up(self) -> None:
        self._ways.awaited.clear(self)
        self._ways.left(self._begun.arrived_s, self._way)

    def late(self) -> None:
        self._turn.done(self._ways.refusal(self._way, self._turn, too_slow(), self._begun.arrived_s))


class Flight:
    """One request at one node: who waits on its wire. It is in flight from `sent_s` on, until it has `ended`."""

    __slots__ = (
        "_ways", "allowed_ms", "began_s", "begun", "body", "ended", "expected_ms", "node", "route_ms", "sent_s", "task",
        "turn", "used", "way", "wire",
    )  # fmt: skip

    def __init__(
        self, ways: Ways, way: Way, turn: Turn, body: Body, begun: Begun, began_s: float, node: Node, wire: Wire
    ) -> None:
        self._ways = ways
        self.way = way
        self.turn = turn
        self.body = body
        self.begun = begun
        self.began_s = began_s
        self.node = node
        self.wire = wire
        self.used = wire.used
        self.sent_s = self.route_ms = self.allowed_ms = self.expected_ms = 0.0
        self.task: asyncio.Task[None] | None = None
        self.ended = False

    def answered(self, reply: Reply) -> None:
        self._ways.answered(self, reply)

    def failed(self, reason: str, reply: Reply) -> None:
        if self.used and not reply.begun:
            self._ways.stale(self)
        elif reason == TOO_LARGE:
            self._ways.failed(self, self._told(f"{self.node.identity.url} answered too much."), self._blame())
        else:
            told = f"Node {self.node.name} cannot be reached ({reason}). Retry."
            self._ways.failed(self, self._told(told), "failed")

    def late(self) -> None:
        self.wire.give_up()
        error = FoothillError(
            "deadline_exceeded",
            f"{self.node.identity.url} did not answer within {self.allowed_ms:.0f} ms. "
            "Send a larger Foothill-Deadline-Ms, or ask a nearer node.",
        )
        self._ways.failed(self, error, self._blame())

    def give_up(self) -> None:
        """Its caller is gone."""
        self._ways.gone(self)

    def _blame(self) -> Ending:
        return "failed" if blames(self.allowed_ms, self.expected_ms) else "abandoned"

    @staticmethod
    def _told(message: str) -> FoothillError:
        return FoothillError("upstream_failed", message)


class Ways:
    """One route's. `clock` is monotonic, `wall` unix time, both in seconds."""

    def __init__(
        self,
        calls: Calls,
        proxy: Proxy,
        nodes: Nodes,
        fields: Fields,
        holder: Holder,
        upstreams: Upstreams,
        tries: Tries,
        accounts: Accounts,
        *,
        hop_key: bytes,
        max_body_bytes: int,
        default_deadline_ms: float,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._calls = calls
        self._proxy = proxy
        self._nodes = nodes
        self._fields = fields
        self._holder = holder
        self._upstreams = upstreams
        self._tries = tries
        self._hop_key = hop_key
        self._default_deadline_ms = default_deadline_ms
        self._wall = wall
        self._fixed: Few[tuple[object, ...], Fixed] = Few()
        self._late: Alarm[Flight] = Alarm(Flight.late, clock)
        self.awaited: Alarm[Coming] = Alarm(Coming.late, clock)
        self.accounts = accounts
        self.max_body_bytes = max_body_bytes
        self.clock = clock

    def prepare(self, request: Known) -> Way | None:
        """`runtime.links.http.hot_routes.Prepare`. None for what only the story knows how to answer: hedges too."""
        try:
            terms = headers.parse_terms(request.headers)
        except FoothillError:
            return None
        plain = terms.escalation != "always" and not terms.idempotency_key and "Prefer" not in request.headers
        return Way(self, request, terms, self._fields.of(request.params["model"], terms.residency)) if plain else None

    def begin(self, way: Way, turn: Turn) -> Begun | None:
        """None for terms that are none: the story says so."""
        arrived_s = self.clock()
        try:
            terms = headers.renewed(way.terms, turn.varied) if turn.varied else way.terms
        except FoothillError:
            return None
        deadline_s = (terms.deadline_ms or self._default_deadline_ms) / 1000.0
        return Begun(arrived_s, terms, Deadline(arrived_s + deadline_s))

    def send(self, way: Way, body: Body, turn: Turn, begun: Begun) -> GiveUp | None:
        """None where no node can be asked just so: the story says what is to be done."""
        now_s = self.clock()
        left_ms = begun.deadline.left_ms(now_s)
        picked = way.field.pick(now_s, left_ms=left_ms, size_bytes=len(body)) if left_ms > 0 else None
        if picked is None:
            return None
        node = picked.node
        place = self._place(node)
        wire = place.pool.take() if place is not None else None
        if place is None or wire is None:
            return None
        flight = Flight(self, way, turn, body, begun, now_s, node, wire)
        self._tries.begin()
        flight.expected_ms = picked.expected_ms
        flight.allowed_ms = share_ms(flight.expected_ms, begun.deadline, now_s)
        head = self._head(flight, place)
        node.reserve(now_s)
        self.accounts.in_flight.count += 1
        self._late.set(flight, now_s + flight.allowed_ms / 1000.0)
        flight.sent_s = self.clock()
        flight.route_ms = (flight.sent_s - now_s) * 1000.0
        wire.ask("POST", head, body, flight)
        return flight.give_up

    def answered(self, flight: Flight, reply: Reply) -> None:
        self._late.clear(flight)
        now_s = self.clock()
        answer = Answer(reply.status, reply.headers, bytes(reply.body), (now_s - flight.sent_s) * 1000.0)
        judgement = judge(answer.status)
        try:
            if judgement.final:
                flight.node.note_answer(answer, now_s, sent_bytes=len(flight.body), expected_ms=flight.expected_ms)
        finally:
            flight.node.release(judgement.ending, now_s)
        try:
            kept, drawn = self._kept(flight, answer)
            if kept is not None:
                self._tell(flight, answer, kept)
            else:
                self._go_on(flight, answer, drawn=drawn)
        except Exception as error:  # noqa: BLE001 - nobody else would answer
            self._refuse(flight, error)

    def failed(self, flight: Flight, error: FoothillError, ending: Ending) -> None:
        self._late.clear(flight)
        flight.node.release(ending, self.clock())
        self._go_on(flight, error)

    def stale(self, flight: Flight) -> None:
        """The connection had ended before it was asked: nobody is to blame, and the same node may be asked again."""
        self._late.clear(flight)
        flight.node.release("abandoned", self.clock())
        self._go_on(flight, None)

    def gone(self, flight: Flight) -> None:
        """Its caller is."""
        self._late.clear(flight)
        flight.ended = True
        if flight.task is not None:
            flight.task.cancel()
        else:
            flight.wire.give_up()
            flight.node.release("abandoned", self.clock())
        self.left(flight.began_s, flight.way)

    def left(self, began_s: float, way: Way) -> None:
        """A caller that was counted among those in flight is gone."""
        account = self._account(began_s, way)
        account.failed("client-gone", CLIENT_GONE)
        self.accounts.close(account)

    def refusal(self, way: Way, turn: Turn, error: Exception, began_s: float) -> Outgoing:
        """The last of a request that was counted among those in flight."""
        account = self._account(began_s, way)
        answer = self.accounts.refusal(error, way.request.again(turn.request_id, turn.varied), account)
        self.accounts.close(account)
        return answer

    def _account(self, began_s: float, way: Way) -> Account:
        """Of a model that nobody serves no name is counted: callers could make up any number."""
        return self.accounts.account(began_s, way.model if self._nodes.serving(way.model) else "", {})

    def _place(self, node: Node) -> Place | None:
        try:
            return self._upstreams.place(node.identity.url)
        except UpstreamUnreachable:
            return None

    def _head(self, flight: Flight, place: Place) -> bytes:
        """Values of the same width in every request: heads of one length are read faster."""
        way, request_id, varied = flight.way, flight.turn.request_id, flight.turn.varied
        first = way.first.replace(" ", " " + place.prefix, 1) if place.prefix else way.first
        own = "".join([f"{name}: {value}\r\n" for name, value in varied.items() if name.lower() in _VARIED])
        mark = sign_hop(self._hop_key, "router", request_id, self._wall())
        return (
            f"{first}Host: {place.host}\r\n{way.lines}{own}Content-Length: {len(flight.body)}\r\n"
            f"{headers.REQUEST_ID}: {request_id}\r\n{headers.HOP}: {mark}\r\n"
            f"{headers.DEADLINE_MS}: {milliseconds(flight.allowed_ms)}\r\n\r\n"
        ).encode("utf-8", "surrogateescape")

    def _kept(self, flight: Flight, answer: Answer) -> tuple[Verdict | None, bool | None]:
        """Why an edge answer stands, None where there is more to do; and whether an audit was drawn, None where nobody
        has drawn yet."""
        if answer.status != 200 or headers.LOAD not in answer.headers:
            return None, None
        evidence, begun = evidence_of(answer), flight.begun
        verdict, drawn = self._holder.glance(evidence.confidence, evidence.stratum, begun.terms)
        if verdict.action == "escalate" and not drawn:
            verdict = self._holder.judge(evidence, begun.terms, begun.deadline, drawn=False).verdict
        return (verdict if verdict.action == "accept" and not drawn else None), drawn

    def _tell(self, flight: Flight, answer: Answer, verdict: Verdict) -> None:
        """An edge answer that stands."""
        told, way = answer.headers, flight.way
        theirs = across_hop(answer.hop_ms, parse_server_timing(told.get(headers.SERVER_TIMING)))
        phases_ms = {"route": flight.route_ms, **theirs, TOTAL: (self.clock() - flight.began_s) * 1000.0}
        own = headers.relayed(told, (headers.NODE, headers.CONFIDENCE))
        own |= {headers.REQUEST_ID: flight.turn.request_id, headers.SERVER_TIMING: format_server_timing(phases_ms)}
        body = with_reason(answer.body, told.get("Content-Type", ""), verdict.reason) if way.predicts else answer.body
        self._end(flight, Outgoing(200, own, body, self._fixed_of(told, verdict)))
        self.accounts.answered(way.model, verdict.reason, tuple(phases_ms), [tuple(phases_ms.values())], tier="edge")

    def _fixed_of(self, told: Mapping[str, str], verdict: Verdict) -> Fixed:
        key = (*[told.get(name) for name in _FIXED], verdict.reason, verdict.certified, verdict.degraded)
        fixed = self._fixed.get(key)
        if fixed is None:
            named = headers.relayed(told, _FIXED) | {
                headers.TIER: "edge",
                headers.REASON: verdict.reason,
                headers.CERTIFIED: str(verdict.certified).lower(),
                headers.DEGRADED: str(verdict.degraded).lower(),
            }
            fixed = self._fixed.put(key, Fixed(named))
        return fixed

    def _go_on(self, flight: Flight, first: Answer | FoothillError | None, *, drawn: bool | None = None) -> None:
        flight.task = asyncio.create_task(self._finish(flight, first, drawn=drawn))

    async def _finish(self, flight: Flight, first: Answer | FoothillError | None, *, drawn: bool | None) -> None:
        """As the story does, from where the first node has answered, or has not."""
        account = self._account(flight.began_s, flight.way)
        try:
            answer = self.accounts.worded(await self._settled(flight, account, first, drawn=drawn))
        except Exception as error:  # noqa: BLE001 - none of them may be lost
            self._refuse(flight, error)
            return
        if not flight.ended:
            self.accounts.close(account)
            self._end(flight, answer)

    async def _settled(
        self, flight: Flight, account: Account, first: Answer | FoothillError | None, *, drawn: bool | None
    ) -> Outgoing:
        way, turn = flight.way, flight.turn
        request = way.request.again(turn.request_id, turn.varied)
        terms = msgspec.structs.replace(flight.begun.terms, request_id=turn.request_id)
        sent = self._calls.marked(request, terms, request.target, flight.body)
        trail = Trail()
        trail.route_ms = flight.route_ms
        if first is not None:
            trail.tried.add(flight.node.name)
        call = Call(sent, terms, flight.begun.deadline, way.model)
        settled = await self._proxy.go_on(call, trail, first, flight.sent_s, drawn=drawn)
        phases_ms = {**settled.phases, TOTAL: (self.clock() - flight.began_s) * 1000.0}
        account.answered(settled.tier, settled.reason, phases_ms, settled.answer.status)
        return settled_answer(settled, phases_ms, terms.request_id)

    def _refuse(self, flight: Flight, error: Exception) -> None:
        if not flight.ended:
            self._end(flight, self.refusal(flight.way, flight.turn, error, flight.began_s))

    @staticmethod
    def _end(flight: Flight, answer: Outgoing) -> None:
        flight.ended = True
        flight.turn.done(answer)
