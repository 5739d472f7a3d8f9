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
from router.answers import settled_answer
from router.calls import Calls
from router.fields import Field, Fields
from router.flights import OWN, Begun, Flight, Lane, Way
from router.node import Ending, Node
from router.nodes import Nodes
from router.proxy import Proxy
from router.readings import Reading, Times, Told, phases_ms, settled
from router.tries import Call, Trail, Tries, judge, share_ms
from runtime.links.access.hop import HopSigner
from runtime.links.escalation.holder import Evidence, Holder
from runtime.links.http.accounts import CLIENT_GONE, Account, Accounts, Tally
from runtime.links.http.bodies import too_slow
from runtime.links.http.exchanges import Body, Clock, Known, Outgoing, Varied
from runtime.links.http.hot_routes import GiveUp, Turn
from runtime.links.http.replies import Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.upstream import Answer, Upstreams, UpstreamUnreachable, milliseconds
from runtime.links.process.alarm import Alarm

_MOST_TALLIES = 64
_ID, _HOP, _DEADLINE, _TIMING = headers.REQUEST_ID, headers.HOP, headers.DEADLINE_MS, headers.SERVER_TIMING


class _Short(Way):
    """`runtime.links.http.hot_routes.Shortcut` for them."""

    __slots__ = ("_ways",)

    def __init__(self, ways: Ways, request: Known, terms: Terms, field: Field) -> None:
        super().__init__(request, terms, field)
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
        self._ways.left(self._begun.arrived_s, self._way)

    def late(self) -> None:
        self._turn.done(self._ways.refusal(self._way, self._turn, too_slow(), self._begun.arrived_s))


def _own_lines(varied: Varied) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in varied.items() if name.lower() in OWN])


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
        self._signer = HopSigner(hop_key, "router")
        self._default_deadline_ms = default_deadline_ms
        self._wall = wall
        self._late: Alarm[Flight] = Alarm(Flight.late, clock)
        self.awaited: Alarm[Coming] = Alarm(Coming.late, clock)
        self.accounts = accounts
        self.max_body_bytes = max_body_bytes
        self.clock = clock

    def prepare(self, request: Known) -> _Short | None:
        """`runtime.links.http.hot_routes.Prepare`. None for what only the story knows how to answer: hedges too."""
        try:
            terms = headers.parse_terms(request.headers)
        except FoothillError:
            return None
        if terms.escalation == "always" or terms.idempotency_key or "Prefer" in request.headers:
            return None
        model, version = request.params["model"], request.params.get("version", "")
        return _Short(self, request, terms, self._fields.of(model, terms.residency, version, terms.priority))

    def begin(self, way: Way, turn: Turn) -> Begun | None:
        """None for terms that are none: the story says so."""
        arrived_s = self.clock()
        try:
            terms = headers.renewed(way.terms, turn.varied) if turn.varied else way.terms
        except FoothillError:
            return None
        deadline_s = (terms.deadline_ms or self._default_deadline_ms) / 1000.0
        return Begun(arrived_s, terms, Deadline(arrived_s + deadline_s), arrived_s)

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
            return None
        allowed_ms = share_ms(expected_ms, left_ms)
        head = lane.head + self._own(turn, len(body), allowed_ms)
        flight = Flight(self, way, turn, body, begun, node, wire, wire.used, expected_ms, allowed_ms)
        self._tries.begin(now_s)
        node.reserve(now_s)
        self.accounts.in_flight.count += 1
        self._late.set(flight, now_s + allowed_ms / 1000.0)
        flight.sent_s = self.clock()
        wire.ask("POST", head, body, flight)
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
        answer = Answer(reply.status, reply.headers, bytes(reply.body), (now_s - flight.sent_s) * 1000.0)
        judgement = judge(answer.status)
        try:
            if judgement.final:
                flight.node.note_answer(answer, now_s, sent_bytes=len(flight.body), expected_ms=flight.expected_ms)
        finally:
            flight.node.release(judgement.ending, now_s)
        self._go_on(flight, answer, drawn=flight.drawn)

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
        self.left(flight.begun.began_s, flight.way)

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
        lines = (
            f"{reading.confidence_line(reply.values)}{_ID}: {flight.turn.request_id}\r\n"
            f"{_TIMING}: route;dur={route_ms:.3f}, {times.written}, network;dur={network_ms:.3f}, "
            f"{TOTAL};dur={total_ms:.3f}\r\n"
        )
        body, told = bytes(reply.body), reading.told(verdict)
        if way.predicts:
            body = settled(body, reading.content_type, told, verdict)
        flight.ended = True
        flight.turn.done(Outgoing(200, {}, body, told.fixed, lines))
        tally = way.tallies.get(told) or self._tally(way, told, verdict.reason)
        tally.add((route_ms, network_ms, total_ms), times.written)

    def _tally(self, way: Way, told: Told, reason: str) -> Tally:
        phases = ("route", "network", TOTAL, *told.phases)
        if len(way.tallies) >= _MOST_TALLIES:
            way.tallies.clear()
        tally = way.tallies[told] = self.accounts.tally(way.model, reason, phases, phases_ms, tier="edge")
        return tally

    def _go_on(self, flight: Flight, first: Answer | FoothillError | None, *, drawn: bool | None = None) -> None:
        flight.task = asyncio.create_task(self._finish(flight, first, drawn=drawn))

    async def _finish(self, flight: Flight, first: Answer | FoothillError | None, *, drawn: bool | None) -> None:
        """As the story does, from where the first node has answered, or has not."""
        account = self._account(flight.begun.began_s, flight.way)
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
        trail.route_ms = (flight.sent_s - flight.begun.began_s) * 1000.0
        if first is not None:
            trail.tried.add(flight.node.name)
        call = Call(sent, terms, flight.begun.deadline, way.model, version=request.params.get("version", ""))
        settled = await self._proxy.go_on(call, trail, first, flight.sent_s, drawn=drawn)
        phases_ms = {**settled.phases, TOTAL: (self.clock() - flight.begun.began_s) * 1000.0}
        account.answered(settled.tier, settled.reason, phases_ms, settled.answer.status)
        return settled_answer(settled, phases_ms, terms.request_id)

    def _refuse(self, flight: Flight, error: Exception) -> None:
        if not flight.ended:
            self._end(flight, self.refusal(flight.way, flight.turn, error, flight.begun.began_s))

    @staticmethod
    def _end(flight: Flight, answer: Outgoing) -> None:
        flight.ended = True
        flight.turn.done(answer)
