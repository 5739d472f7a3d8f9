"""The short way through the router: requests like others before them are sent on, and answered, without tasks.

Only what differs between two of them is looked at for each. What is out of the ordinary, a node that fails, an answer
that is doubted, an audit that was drawn, goes on as `proxy.py` tells it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.circuits import blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.escalation import Verdict
from contracts.headers import Terms
from contracts.predictions import with_reason
from contracts.timing import TOTAL, across_hop, format_server_timing, parse_server_timing
from router.answers import settled_answer
from router.calls import Calls
from router.nodes import Ending, Node, Nodes
from router.proxy import Call, Proxy, Trail, judge
from router.selection import Query, pick
from runtime.links.access.hop import sign_hop
from runtime.links.escalation.holder import Holder, evidence_of
from runtime.links.http.accounts import CLIENT_GONE, Account, Accounts
from runtime.links.http.bodies import too_slow
from runtime.links.http.exchanges import Body, Clock, Fixed, Known, Outgoing, header_lines
from runtime.links.http.hot_routes import GiveUp, Turn
from runtime.links.http.replies import Reply
from runtime.links.http.upstream import Answer, Upstreams
from runtime.links.http.wires import Wire
from runtime.links.process.alarm import Alarm
from runtime.links.process.few import Few

_VARIED = frozenset(name.lower() for name in (headers.TRACEPARENT, headers.IDEMPOTENCY_KEY))


class Way:
    """`runtime.links.http.hot_routes.Shortcut` for the requests with one head.

    `lines` are the headers that all of them are sent on with, as they go over the wire.
    """

    __slots__ = ("_ways", "first", "lines", "model", "request", "terms")

    def __init__(self, ways: Ways, request: Known, terms: Terms) -> None:
        self._ways = ways
        self.request = request
        self.terms = terms
        self.model = request.params["model"]
        sent = headers.relayed(request.headers, headers.RELAYED_IN) | terms.claim()
        self.lines = header_lines({name: value for name, value in sent.items() if name.lower() not in _VARIED})
        self.first = f"{request.method} {request.target} HTTP/1.1\r\n"

    def start(self, body: Body, turn: Turn, arrived_s: float | None = None) -> GiveUp | None:
        return self._ways.send(self, body, turn, arrived_s)

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        return Coming(self._ways, self, turn) if body_bytes <= self._ways.max_body_bytes else None


class Coming:
    """`runtime.links.http.hot_routes.Coming`: a request whose body has still to come."""

    __slots__ = ("_arrived_s", "_turn", "_way", "_ways")

    def __init__(self, ways: Ways, way: Way, turn: Turn) -> None:
        self._ways = ways
        self._way = way
        self._turn = turn
        self._arrived_s = ways.clock()
        ways.accounts.in_flight.count += 1
        ways.awaited.set(self, self._arrived_s + ways.deadline_ms(way.terms) / 1000.0)

    @property
    def waited_s(self) -> float:
        return self._ways.clock() - self._arrived_s

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        self._end()
        return self._way.start(body, turn, self._arrived_s)

    def give_up(self) -> None:
        self._end()
        self._ways.left(self._arrived_s, self._way)

    def late(self) -> None:
        self._end()
        self._turn.done(self._ways.refusal(self._way, self._turn, too_slow(), self._arrived_s))

    def _end(self) -> None:
        self._ways.awaited.clear(self)
        self._ways.accounts.in_flight.count -= 1


class Flight:
    """One request at one node: who waits on its wire."""

    __slots__ = (
        "_ways",
        "allowed_ms",
        "arrived_s",
        "body",
        "deadline",
        "node",
        "route_ms",
        "sent_s",
        "task",
        "terms",
        "turn",
        "way",
        "wire",
    )  # fmt: skip

    def __init__(self, ways: Ways, way: Way, turn: Turn, body: Body, terms: Terms, deadline: Deadline) -> None:
        self._ways = ways
        self.way = way
        self.turn = turn
        self.body = body
        self.terms = terms
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self.arrived_s = self.sent_s = self.route_ms = self.allowed_ms = 0.0
        self.node: Node
        self.wire: Wire

    def answered(self, reply: Reply) -> None:
        self._ways.answered(self, reply)

    def failed(self, reason: str, reply: Reply) -> None:
        error = FoothillError("upstream_failed", f"Node {self.node.name} cannot be reached ({reason}). Retry.")
        self._ways.failed(self, error, "failed")

    def late(self) -> None:
        self.wire.give_up()
        ending: Ending = "failed" if blames(self.allowed_ms, self._ways.expected_ms(self.node)) else "abandoned"
        error = FoothillError(
            "deadline_exceeded",
            f"{self.node.identity.url} did not answer within {self.allowed_ms:.0f} ms. "
            "Send a larger Foothill-Deadline-Ms, or ask a nearer node.",
        )
        self._ways.failed(self, error, ending)

    def give_up(self) -> None:
        """Its caller is gone."""
        self._ways.gone(self)


class Ways:
    """One route's. `clock` is monotonic, `wall` unix time, both in seconds."""

    def __init__(
        self,
        calls: Calls,
        proxy: Proxy,
        nodes: Nodes,
        holder: Holder,
        upstreams: Upstreams,
        budget: RetryBudget,
        accounts: Accounts,
        *,
        hop_key: bytes,
        max_body_bytes: int,
        default_deadline_ms: float,
        rng: random.Random,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._calls = calls
        self._proxy = proxy
        self._nodes = nodes
        self._holder = holder
        self._upstreams = upstreams
        self._budget = budget
        self._hop_key = hop_key
        self._default_deadline_ms = default_deadline_ms
        self._rng = rng
        self._wall = wall
        self._fixed: Few[tuple[object, ...], Fixed] = Few()
        self._late: Alarm[Flight] = Alarm(Flight.late, clock)
        self.awaited: Alarm[Coming] = Alarm(Coming.late, clock)
        self.accounts = accounts
        self.max_body_bytes = max_body_bytes
        self.clock = clock

    def prepare(self, request: Known) -> Way | None:
        """`runtime.links.http.hot_routes.Prepare`. None for what only the story knows how to answer."""
        try:
            terms = headers.parse_terms(request.headers)
        except FoothillError:
            return None
        plain = terms.escalation != "always" and "Prefer" not in request.headers
        return Way(self, request, terms) if plain else None

    def deadline_ms(self, terms: Terms) -> float:
        return terms.deadline_ms or self._default_deadline_ms

    def expected_ms(self, node: Node) -> float:
        return self._proxy.expected_ms(node, self.clock())

    def send(self, way: Way, body: Body, turn: Turn, arrived_s: float | None) -> GiveUp | None:
        """None where no node can be asked just so: the story says what is to be done."""
        now_s = self.clock()
        arrived_s = now_s if arrived_s is None else arrived_s
        try:
            terms = headers.renewed(way.terms, turn.varied) if turn.varied else way.terms
        except FoothillError:
            return None
        deadline = Deadline(arrived_s + self.deadline_ms(terms) / 1000.0)
        node = pick(self._nodes.serving(way.model), Query(way.model, terms.residency), now_s, self._rng)
        place = self._upstreams.place(node.identity.url) if node is not None else None
        wire = place.pool.take() if place is not None else None
        if node is None or place is None or wire is None or deadline.left_s(now_s) <= 0:
            return None
        flight = Flight(self, way, turn, body, terms, deadline)
        flight.node, flight.wire, flight.arrived_s = node, wire, arrived_s
        self._budget.deposit(now_s)
        node.reserve(now_s)
        self.accounts.in_flight.count += 1
        flight.allowed_ms = self._proxy.share_ms(node, deadline, now_s)
        head = self._head(flight, place.host, place.prefix)
        flight.sent_s = sent_s = self.clock()
        flight.route_ms = (sent_s - now_s) * 1000.0
        self._late.set(flight, now_s + flight.allowed_ms / 1000.0)
        wire.ask("POST", head, body, flight)
        return flight.give_up

    def answered(self, flight: Flight, reply: Reply) -> None:
        self._late.clear(flight)
        now_s, node = self.clock(), flight.node
        answer = Answer(reply.status, reply.headers, bytes(reply.body), (now_s - flight.sent_s) * 1000.0)
        judgement = judge(answer.status)
        if judgement.final:
            node.note_answer(answer, now_s)
        node.release(judgement.ending, now_s)
        drawn = False
        if answer.status == 200 and headers.LOAD in answer.headers:
            evidence = evidence_of(answer)
            verdict, drawn = self._holder.glance(evidence.confidence, evidence.stratum, flight.terms)
            if verdict.action == "escalate" and not drawn:
                verdict = self._holder.judge(evidence, flight.terms, flight.deadline, drawn=False).verdict
            if verdict.action == "accept" and not drawn:
                self._tell(flight, answer, verdict)
                return
        self._go_on(flight, answer, None, drawn=drawn)

    def failed(self, flight: Flight, error: FoothillError, ending: Ending) -> None:
        self._late.clear(flight)
        flight.node.release(ending, self.clock())
        self._go_on(flight, None, error, drawn=False)

    def gone(self, flight: Flight) -> None:
        self._late.clear(flight)
        if flight.task is not None:
            flight.task.cancel()
            return
        flight.wire.give_up()
        flight.node.release("abandoned", self.clock())
        self.left(flight.arrived_s, flight.way)

    def left(self, arrived_s: float, way: Way) -> None:
        """A caller is gone before its answer was there."""
        account = self.accounts.account(arrived_s, way.model, {})
        account.failed("client-gone", CLIENT_GONE)
        self.accounts.in_flight.count += 1
        self.accounts.close(account)

    def refusal(self, way: Way, turn: Turn, error: Exception, arrived_s: float) -> Outgoing:
        request = way.request.again(turn.request_id, turn.varied)
        account = self.accounts.account(arrived_s, way.model, {})
        answer = self.accounts.refusal(error, request, account)
        self.accounts.in_flight.count += 1
        self.accounts.close(account)
        return answer

    def _head(self, flight: Flight, host: str, prefix: str) -> bytes:
        """Values of the same width in every request: heads of one length are read faster."""
        way, request_id, varied = flight.way, flight.turn.request_id, flight.turn.varied
        own = "".join([f"{name}: {value}\r\n" for name, value in varied.items() if name.lower() in _VARIED])
        mark = sign_hop(self._hop_key, "router", request_id, self._wall())
        return (
            f"{way.first if not prefix else way.first.replace(' ', ' ' + prefix, 1)}Host: {host}\r\n{way.lines}{own}"
            f"Content-Length: {len(flight.body)}\r\n{headers.REQUEST_ID}: {request_id}\r\n{headers.HOP}: {mark}\r\n"
            f"{headers.DEADLINE_MS}: {flight.allowed_ms:09.0f}\r\n\r\n"
        ).encode("utf-8", "surrogateescape")

    def _tell(self, flight: Flight, answer: Answer, verdict: Verdict) -> None:
        """An edge answer that stands."""
        phases_ms = self._phases(flight, answer)
        sure, kind = answer.headers.get(headers.CONFIDENCE), answer.headers.get("Content-Type", "")
        lines = (
            f"{headers.REQUEST_ID}: {flight.turn.request_id}\r\n"
            f"{headers.SERVER_TIMING}: {format_server_timing(phases_ms)}\r\n"
        )
        if sure is not None:
            lines += f"{headers.CONFIDENCE}: {float(sure)!r}\r\n"
        body = answer.body if kind == "application/octet-stream" else with_reason(answer.body, kind, verdict.reason)
        flight.turn.done(Outgoing(200, {}, body, self._fixed_of(answer, verdict), lines))
        self.accounts.answered(
            flight.way.model, verdict.reason, tuple(phases_ms), [tuple(phases_ms.values())], tier="edge"
        )

    def _phases(self, flight: Flight, answer: Answer) -> dict[str, float]:
        theirs = across_hop(answer.hop_ms, parse_server_timing(answer.headers.get(headers.SERVER_TIMING)))
        return {"route": flight.route_ms, **theirs, TOTAL: (self.clock() - flight.arrived_s) * 1000.0}

    def _fixed_of(self, answer: Answer, verdict: Verdict) -> Fixed:
        told = answer.headers
        key = (
            told.get("Content-Type"),
            told.get("Inference-Header-Content-Length"),
            told.get(headers.DIGEST),
            told.get(headers.NODE),
            verdict.reason,
            verdict.certified,
            verdict.degraded,
        )
        fixed = self._fixed.get(key)
        if fixed is None:
            named = headers.relayed(told, [name for name in headers.RELAYED_OUT if name != headers.CONFIDENCE])
            named |= {
                headers.TIER: "edge",
                headers.REASON: verdict.reason,
                headers.CERTIFIED: str(verdict.certified).lower(),
                headers.DEGRADED: str(verdict.degraded).lower(),
            }
            fixed = self._fixed.put(key, Fixed(named))
        return fixed

    def _go_on(self, flight: Flight, answer: Answer | None, error: FoothillError | None, *, drawn: bool) -> None:
        flight.task = asyncio.create_task(self._finish(flight, answer, error, drawn=drawn))

    async def _finish(self, flight: Flight, answer: Answer | None, error: FoothillError | None, *, drawn: bool) -> None:
        """As the story does, from where the first node has answered, or has not."""
        way, turn = flight.way, flight.turn
        request = way.request.again(turn.request_id, turn.varied)
        account = self.accounts.account(flight.arrived_s, way.model, {})
        try:
            outgoing = await self._settled(flight, request, account, answer, error, drawn=drawn)
        except asyncio.CancelledError:
            account.failed("client-gone", CLIENT_GONE)
            self.accounts.close(account)
            raise
        except Exception as failure:  # noqa: BLE001 - none of them may be lost
            outgoing = self.accounts.refusal(failure, request, account)
        self.accounts.close(account)
        turn.done(self.accounts.worded(outgoing))

    async def _settled(
        self,
        flight: Flight,
        request: Known,
        account: Account,
        answer: Answer | None,
        error: FoothillError | None,
        *,
        drawn: bool,
    ) -> Outgoing:
        way, terms = flight.way, msgspec.structs.replace(flight.terms, request_id=flight.turn.request_id)
        sent = self._calls.marked(request, terms, request.target, flight.body)
        call = Call(sent, terms, flight.deadline, way.model)
        trail = Trail()
        trail.tried.add(flight.node.name)
        trail.route_ms = flight.route_ms
        failure = error if answer is None else None
        settled = await self._proxy.go_on(call, trail, answer, failure, flight.sent_s, drawn=drawn)
        phases_ms = {**settled.phases, TOTAL: (self.clock() - flight.arrived_s) * 1000.0}
        account.answered(settled.tier, settled.reason, phases_ms, settled.answer.status)
        return settled_answer(settled, phases_ms, terms.request_id)
