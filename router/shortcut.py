"""The short way through the router: requests like others before them are sent on, and answered, without tasks.

Only what differs between two of them is looked at for each. What is out of the ordinary, a node that fails, an answer
that is doubted, an audit that was drawn, goes on as `proxy.py` tells it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.escalation import NO_CLOUD, Verdict
from contracts.headers import Terms
from contracts.timing import TOTAL
from contracts.traces import own_traceparent, told_traceparent
from router.answers import settled_answer
from router.budgets import Purse
from router.calls import Calls
from router.fields import Field, Fields
from router.flights import OWN, Begun, Flight, Lane, Way
from router.node import Ending, Node
from router.nodes import Nodes
from router.proxy import Proxy
from router.readings import Reading, Times, Told, phases_ms, settled
from router.seeing.access_log import Kind, Noted
from router.seeing.witness import Witness
from router.tries import Call, Trail, Tries, judge, share_ms
from runtime.links.access.admission import Admission
from runtime.links.access.grants import ANYBODY
from runtime.links.access.hop import HopSigner
from runtime.links.escalation.holder import Evidence, Holder
from runtime.links.http.accounts import CLIENT_GONE, Account, Accounts, Tally
from runtime.links.http.bodies import too_slow
from runtime.links.http.exchanges import Body, Clock, Known, Outgoing, Varied
from runtime.links.http.hot_routes import GiveUp, Turn
from runtime.links.http.replies import Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.spool import SPOOLED_BYTES
from runtime.links.http.upstream import Answer, Upstreams, UpstreamUnreachable, answer_of, milliseconds
from runtime.links.process.alarm import Alarm

_MOST_TALLIES = 64
_ID, _HOP, _DEADLINE, _TIMING = headers.REQUEST_ID, headers.HOP, headers.DEADLINE_MS, headers.SERVER_TIMING
_TRACE = headers.TRACEPARENT


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
        ways.awaited.set(self, begun.deadline.expires_at_s)

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
        self._ways.left(self._begun.arrived_s, self._way, self._turn)

    def late(self) -> None:
        self._turn.done(self._ways.refusal(self._way, self._turn, too_slow(), self._begun.arrived_s))


def _own_lines(varied: Varied) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in varied.items() if name.lower() in OWN])


def _again(way: Way, turn: Turn) -> Known:
    """The request as those see it who tell of it."""
    request = way.request.again(turn.request_id, turn.varied)
    request.grant = turn.grant
    return request


def _trace(way: Way, turn: Turn) -> str:
    return turn.varied.get(_TRACE, way.asked.traceparent)


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
        self._calls = calls
        self._proxy = proxy
        self._nodes = nodes
        self._fields = fields
        self._holder = holder
        self._upstreams = upstreams
        self._tries = tries
        self._admission = admission
        self._purse = purse
        self._signer = HopSigner(hop_key, "router")
        self._default_deadline_ms = default_deadline_ms
        self._wall = wall
        self._witness, self._log, self._spans = witness, witness.access_log, witness.spans
        self._late: Alarm[Flight] = Alarm(Flight.late, clock)
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
        return self._fields.of(request.params["model"], terms.residency, version, terms.priority)

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
        return Begun(arrived_s, terms, Deadline(arrived_s + deadline_s), arrived_s)

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
            turn.done(self.refusal(way, turn, error, arrived_s, admitted=False))
            return False
        turn.grant = grant
        return True

    def send(self, way: Way, body: Body, turn: Turn, begun: Begun) -> GiveUp | None:
        """None where no node can be asked just so: the story says what is to be done."""
        now_s = begun.began_s
        left_ms = (begun.deadline.expires_at_s - now_s) * 1000.0
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
        flight = Flight(self, way, turn, body, begun, node, wire, wire.used, expected_ms, allowed_ms)
        self._tries.begin(now_s)
        node.reserve(now_s)
        self.accounts.in_flight.count += 1
        self._late.set(flight, now_s + allowed_ms / 1000.0)
        flight.sent_s = self.clock()
        wire.ask("POST", head, body, flight, spools=not way.predicts)
        return flight.give_up

    def answered(self, flight: Flight, reply: Reply | KnownReply) -> None:
        self._late.clear(flight)
        now_s = self.clock()
        try:
            if not (isinstance(reply, KnownReply) and self._known(flight, reply, now_s)):
                self._weigh(flight, reply, now_s)
        except Exception as error:  # noqa: BLE001 - nobody else would answer
            self._refuse(flight, error)

    def _known(self, flight: Flight, reply: KnownReply, now_s: float) -> bool:
        """An answer that reads like others before it, and stands. False: it is more than that, and nothing is done."""
        form, values, node = reply.form, reply.values, flight.node
        reading = form.notes.get(Reading)
        if reading is None:
            reading = form.notes[Reading] = Reading(form)
        try:
            times = reading.times(values) if reading.of_node else None
            confidence = reading.confidence(values)
        except ValueError:
            return False
        if times is None:
            return False
        terms = flight.begun.terms
        verdict, drawn = self._holder.glance(confidence, reading.stratum, terms)
        if verdict.action == "escalate" and not drawn and not self._holder.may_ask_cloud(terms):
            verdict = NO_CLOUD
        elif verdict.action == "escalate" and not drawn:
            evidence = Evidence(confidence, reading.stratum, "", "")
            verdict = self._holder.judge(evidence, terms, flight.begun.deadline, drawn=False).verdict
        if verdict.action != "accept" or drawn:
            flight.drawn = drawn
            return False
        hop_ms = (now_s - flight.sent_s) * 1000.0
        try:
            if node.may_learn(now_s):
                load, size_bytes = reading.value(headers.LOAD, values), len(flight.body) + len(reply.body)
                node.learn(hop_ms, times.total_ms, load, now_s, size_bytes, flight.expected_ms)
        finally:
            node.release("succeeded", now_s)
        self._tell(flight, reading, reply, times, verdict, hop_ms, now_s)
        return True

    def _weigh(self, flight: Flight, reply: Reply | KnownReply, now_s: float) -> None:
        """Any other answer."""
        answer = answer_of(reply, (now_s - flight.sent_s) * 1000.0)
        judgement = judge(answer.status)
        try:
            if judgement.final:
                flight.node.note_answer(answer, now_s, sent_bytes=len(flight.body), expected_ms=flight.expected_ms)
                self._spend(flight)
        finally:
            flight.node.release(judgement.ending, now_s)
        self._go_on(flight, answer, drawn=flight.drawn)

    def _spend(self, flight: Flight) -> None:
        grant = flight.turn.grant or ANYBODY
        self._purse.spend(grant.tenant, grant.allowance, flight.node.cost)

    def failed(self, flight: Flight, error: FoothillError, ending: Ending) -> None:
        self._late.clear(flight)
        flight.node.release(ending, self.clock())
        self._go_on(flight, error)

    def stale(self, flight: Flight, *, sent: bool) -> None:
        """Nobody is to blame, and the same node may be asked again; once something was sent, if the budget allows."""
        self._late.clear(flight)
        flight.node.release("abandoned", self.clock())
        spent = sent and not self._tries.may_retry(Trail())
        self._go_on(flight, flight.ended_early() if spent else None)

    def gone(self, flight: Flight) -> None:
        """Its caller is."""
        self._late.clear(flight)
        flight.ended = True
        if flight.task is not None:
            flight.task.cancel()
        else:
            flight.wire.give_up()
            flight.node.release("abandoned", self.clock())
        self.left(flight.begun.began_s, flight.way, flight.turn, len(flight.body))

    def left(self, began_s: float, way: Way, turn: Turn, body_bytes: int = 0) -> None:
        """A caller that was counted among those in flight is gone."""
        account = self._account(began_s, way, body_bytes)
        account.failed("client-gone", CLIENT_GONE)
        self.accounts.close(account)
        self.accounts.seen(_again(way, turn), account, None)

    def refusal(
        self,
        way: Way,
        turn: Turn,
        error: Exception,
        began_s: float,
        body_bytes: int = 0,
        *,
        admitted: bool = True,
    ) -> Outgoing:
        """The last of a request that was counted among those in flight."""
        account = self._account(began_s, way, body_bytes) if admitted else self.accounts.account(began_s, "", {})
        request = _again(way, turn)
        answer = self.accounts.refusal(error, request, account)
        self.accounts.close(account)
        self.accounts.seen(request, account, answer)
        return answer

    def _account(self, began_s: float, way: Way, body_bytes: int) -> Account:
        """Of a model that nobody serves no name is counted: callers could make up any number."""
        account = self.accounts.account(began_s, way.model if self._nodes.serving(way.model) else "", {})
        account.body_bytes = body_bytes
        return account

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
            f"{own}Content-Length: {body_bytes}\r\n{_ID}: {request_id}\r\n{_HOP}: {mark}\r\n"
            f"{_DEADLINE}: {milliseconds(allowed_ms)}\r\n\r\n"
        ).encode()

    def _tell(
        self,
        flight: Flight,
        reading: Reading,
        reply: KnownReply,
        times: Times,
        verdict: Verdict,
        hop_ms: float,
        now_s: float,
    ) -> None:
        """An edge answer that stands."""
        way = flight.way
        began_s = flight.begun.began_s
        route_ms = (flight.sent_s - began_s) * 1000.0
        network_ms = hop_ms - times.total_ms if hop_ms > times.total_ms else 0.0
        total_ms = (now_s - began_s) * 1000.0
        request_id, sent = flight.turn.request_id, flight.begun.terms.traceparent
        trace = told_traceparent(sent, request_id) if sent or way.names_itself else own_traceparent(request_id)
        lines = (
            f"{reading.confidence_line(reply.values)}{_ID}: {request_id}\r\n{_TRACE}: {trace}\r\n"
            f"{_TIMING}: route;dur={route_ms:.3f}, {times.written}, network;dur={network_ms:.3f}, "
            f"{TOTAL};dur={total_ms:.3f}\r\n"
        )
        body, told = bytes(reply.body), reading.told(verdict)
        if way.predicts:
            body = settled(body, reading.content_type, told, verdict)
        flight.ended = True
        flight.turn.done(Outgoing(200, {}, body, told.fixed, lines))
        if flight.node.cost:
            self._spend(flight)
        tally = way.tallies.get(told) or self._tally(way, told, verdict.reason, flight.node)
        tally.add((route_ms, network_ms, total_ms), times.written)
        if self._log is not None and self._log.draws:
            phases = {"route": route_ms, "network": network_ms, TOTAL: total_ms}
            kind = way.kinds.get(told) or self._kind(way, told, verdict.reason, flight.node)
            noted = Noted(kind, self._wall(), request_id, sent, len(flight.body), len(body), phases, times.written)
            self._log.lines.note(noted)

    def _tally(self, way: Way, told: Told, reason: str, node: Node) -> Tally:
        """As long as its caller's connection lasts: so long a region that is signed anew is not taken up."""
        phases = ("route", "network", TOTAL, *told.phases)
        if len(way.tallies) >= _MOST_TALLIES:
            way.tallies.clear()
        region = node.identity.region
        tally = self.accounts.tally(way.model, reason, phases, phases_ms, tier="edge", region=region)
        way.tallies[told] = tally
        return tally

    def _kind(self, way: Way, told: Told, reason: str, node: Node) -> Kind:
        """What lines of the log have in common, for as long."""
        if len(way.kinds) >= _MOST_TALLIES:
            way.kinds.clear()
        request = way.request
        name = told.fixed.headers.get(headers.NODE, "")
        kind = way.kinds[told] = Kind(
            method=request.method,
            route=self.accounts.pattern,
            model=way.model,
            tenant=way.grant.tenant,
            client=self._witness.client(request),
            status=200,
            tier="edge",
            node=name,
            reason=reason,
            region=node.identity.region,
        )
        return kind

    def _go_on(self, flight: Flight, first: Answer | FoothillError | None, *, drawn: bool | None = None) -> None:
        flight.task = asyncio.create_task(self._finish(flight, first, drawn=drawn))

    async def _finish(self, flight: Flight, first: Answer | FoothillError | None, *, drawn: bool | None) -> None:
        """As the story does, from where the first node has answered, or has not."""
        account = self._account(flight.begun.began_s, flight.way, len(flight.body))
        try:
            answer = self.accounts.worded(await self._settled(flight, account, first, drawn=drawn))
        except Exception as error:  # noqa: BLE001 - none of them may be lost
            self._refuse(flight, error)
            return
        if not flight.ended:
            self.accounts.close(account)
            self.accounts.seen(_again(flight.way, flight.turn), account, answer)
            self._end(flight, answer)

    async def _settled(
        self, flight: Flight, account: Account, first: Answer | FoothillError | None, *, drawn: bool | None
    ) -> Outgoing:
        way, turn = flight.way, flight.turn
        request = way.request.again(turn.request_id, turn.varied)
        terms = msgspec.structs.replace(flight.begun.terms, request_id=turn.request_id)
        sent = self._calls.marked(request, terms, request.target, flight.body)
        trail = Trail()
        trail.route_ms = (flight.sent_s - flight.begun.began_s) * 1000.0
        if first is not None:
            trail.tried.add(flight.node.name)
            trail.answered = flight.node if isinstance(first, Answer) and judge(first.status).final else None
        grant, version = turn.grant or ANYBODY, request.params.get("version", "")
        call = Call(sent, terms, flight.begun.deadline, way.model, grant.tenant, grant.allowance, version)
        settled = await self._proxy.go_on(call, trail, first, flight.sent_s, drawn=drawn)
        phases_ms = {**settled.phases, TOTAL: (self.clock() - flight.begun.began_s) * 1000.0}
        account.answered(settled.tier, settled.reason, phases_ms, settled.answer.status, region=settled.region)
        return settled_answer(settled, phases_ms, terms.request_id)

    def _refuse(self, flight: Flight, error: Exception) -> None:
        if not flight.ended:
            answer = self.refusal(flight.way, flight.turn, error, flight.begun.began_s, len(flight.body))
            self._end(flight, answer)

    @staticmethod
    def _end(flight: Flight, answer: Outgoing) -> None:
        flight.ended = True
        flight.turn.done(answer)
