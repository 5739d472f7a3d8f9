"""The other end of the short way: answers that read like others before them are told at once, whatever else goes on as
`proxy.py` tells it."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from contracts import headers
from contracts.errors import FoothillError
from contracts.escalation import NO_CLOUD, Verdict
from contracts.timing import TOTAL
from contracts.traces import own_traceparent, told_traceparent
from router.answers import settled_answer
from router.budgets import Purse
from router.calls import Calls
from router.flights import Flight
from router.lanes import Way
from router.node import Ending, Node
from router.nodes import Nodes
from router.proxy import Proxy
from router.readings import Reading, phases_ms, settled
from router.said import Said, Told
from router.seeing.access_log import Kind, Noted
from router.seeing.witness import Witness
from router.tries import Call, Trail, Tries, judge
from runtime.links.access.grants import ANYBODY
from runtime.links.escalation.holder import Evidence, Holder
from runtime.links.http.accounts import CLIENT_GONE, Account, Accounts
from runtime.links.http.exchanges import Clock, Known, Outgoing
from runtime.links.http.hot_routes import Turn
from runtime.links.http.replies import Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.upstream import Answer, answer_of
from runtime.links.process.alarm import Alarm
from runtime.links.process.telemetry import Tally

_MOST_TALLIES = 64
_LINES: Final = (
    f"%s{headers.REQUEST_ID}: %s\r\n{headers.TRACEPARENT}: %s\r\n"
    f"{headers.SERVER_TIMING}: route;dur=%.3f, %s, network;dur=%.3f, {TOTAL};dur=%.3f\r\n"
)
"""The header lines that every answer says anew; written at once, which costs half of what it does number by number."""


class Arrivals:
    """`router.flights.Watch` of one route. `late` ends flights that take too long; `clock` is monotonic, `wall` unix
    time, both in seconds."""

    def __init__(
        self,
        calls: Calls,
        proxy: Proxy,
        nodes: Nodes,
        holder: Holder,
        tries: Tries,
        witness: Witness,
        purse: Purse,
        accounts: Accounts,
        *,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._calls = calls
        self._proxy = proxy
        self._nodes = nodes
        self._holder = holder
        self._tries = tries
        self._witness, self._log = witness, witness.access_log
        self._purse = purse
        self._wall = wall
        self.late: Alarm[Flight] = Alarm(Flight.late, clock)
        self.accounts = accounts
        self.clock = clock

    def answered(self, flight: Flight, reply: Reply | KnownReply) -> None:
        self.late.clear(flight)
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
            said = reading.read(values) if reading.of_node else None
        except ValueError:
            return False
        if said is None:
            return False
        terms = flight.begun.terms
        verdict, drawn = self._holder.glance(said.confidence, reading.stratum, terms)
        if verdict.action == "escalate" and not drawn and not self._holder.may_ask_cloud(terms):
            verdict = NO_CLOUD
        elif verdict.action == "escalate" and not drawn:
            evidence = Evidence(said.confidence, reading.stratum, "", "")
            verdict = self._holder.judge(evidence, terms, flight.begun.deadline, drawn=False).verdict
        if verdict.action != "accept" or drawn:
            flight.drawn = drawn
            return False
        hop_ms = (now_s - flight.sent_s) * 1000.0
        try:
            if node.may_learn(now_s):
                load, size_bytes = reading.value(headers.LOAD, values), len(flight.body) + len(reply.body)
                node.learn(hop_ms, said.total_ms, load, now_s, size_bytes, flight.expected_ms)
        finally:
            node.release("succeeded", now_s)
        self._tell(flight, reading, reply, said, verdict, hop_ms, now_s)
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
        self.late.clear(flight)
        flight.node.release(ending, self.clock())
        self._go_on(flight, error)

    def stale(self, flight: Flight, *, sent: bool) -> None:
        """Nobody is to blame, and the same node may be asked again; once something was sent, if the budget allows."""
        self.late.clear(flight)
        flight.node.release("abandoned", self.clock())
        spent = sent and not self._tries.may_retry(Trail())
        self._go_on(flight, flight.ended_early() if spent else None)

    def gone(self, flight: Flight) -> None:
        """Its caller is."""
        self.late.clear(flight)
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

    def _tell(
        self,
        flight: Flight,
        reading: Reading,
        reply: KnownReply,
        said: Said,
        verdict: Verdict,
        hop_ms: float,
        now_s: float,
    ) -> None:
        """An edge answer that stands."""
        way = flight.way
        began_s = flight.begun.began_s
        route_ms = (flight.sent_s - began_s) * 1000.0
        network_ms = hop_ms - said.total_ms if hop_ms > said.total_ms else 0.0
        total_ms = (now_s - began_s) * 1000.0
        request_id, sent = flight.turn.request_id, flight.begun.terms.traceparent
        trace = told_traceparent(sent, request_id) if sent or way.names_itself else own_traceparent(request_id)
        lines = _LINES % (said.line, request_id, trace, route_ms, said.wrote, network_ms, total_ms)
        body, told = reply.body, reading.told(verdict)
        if way.predicts:
            body = settled(body, reading.content_type, told, verdict)
        flight.ended = True
        flight.turn.done(Outgoing(200, {}, body, told.fixed, lines))
        if flight.node.cost:
            self._spend(flight)
        tally = way.tallies.get(told) or self._tally(way, told, verdict.reason, flight.node)
        tally.add((route_ms, network_ms, total_ms), said.wrote)
        if self._log is not None and self._log.draws:
            phases = {"route": route_ms, "network": network_ms, TOTAL: total_ms}
            kind = way.kinds.get(told) or self._kind(way, told, verdict.reason, flight.node)
            noted = Noted(kind, self._wall(), request_id, sent, len(flight.body), len(body), phases, said.wrote)
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


def _again(way: Way, turn: Turn) -> Known:
    """The request as those see it who tell of it."""
    request = way.request.again(turn.request_id, turn.varied)
    request.grant = turn.grant
    return request
