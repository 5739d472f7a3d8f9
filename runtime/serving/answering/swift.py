"""The swift way of inference: requests like others before them, taken in and answered many at once, without tasks.

Only what differs between two requests of one caller is looked at for each: its tensors, its times, its id. All the rest
was read before, by the story in `answers`, which also tells whatever is out of the ordinary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from contracts import headers, oip
from contracts.deadlines import Deadline, passed
from contracts.errors import FoothillError
from contracts.headers import Terms
from runtime.links.access.admission import Admission
from runtime.links.access.grants import ANYBODY, Grant
from runtime.links.access.hop import Hop
from runtime.links.escalation.holder import Holder
from runtime.links.http.accounts import CLIENT_GONE, Account, Accounts
from runtime.links.http.bodies import too_slow
from runtime.links.http.exchanges import Body, Clock, Incoming, Known, Outgoing
from runtime.links.http.hot_routes import Done, GiveUp, Turn
from runtime.links.process.alarm import Alarm
from runtime.serving.answering.answers import Answers, Told, for_hop
from runtime.serving.answering.calls import Call
from runtime.serving.answering.pages import Pages
from runtime.serving.answering.ready import Ready
from runtime.serving.batching.line import level_of
from runtime.serving.models.batcher import Answered, BatchResult, Waiting
from runtime.serving.models.forms import Form, short_length
from runtime.serving.models.hosting import ModelHost, Served
from runtime.serving.models.oip import OCTETS, Asked
from runtime.serving.models.statistics import PHASES, Times

Kept = dict[str, list[tuple[int, Times]]]
"""The rows and the times of each request that was answered, by the reason why its answer was kept."""

_LINES = (
    f"{headers.REQUEST_ID}: %s\r\n{headers.SERVER_TIMING}: {', '.join([f'{phase};dur=%.3f' for phase in PHASES])}\r\n%s"
)


class Ask(Waiting, kw_only=True, eq=False):
    """One request on this way. It was here as a whole at `begun_s`; `tell` gets its answer."""

    ready: Ready
    served: Served
    form: Form
    body: Body
    turn: Turn
    tell: Done
    terms: Terms
    grant: Grant
    hop: Hop | None
    begun_s: float
    task: asyncio.Task[None] | None = None


class Begun(NamedTuple):
    """Who asks, where they may, and on which terms; since when, and until when."""

    told: Told
    arrived_s: float
    expires_s: float
    grant: Grant
    hop: Hop | None


class Way:
    """`runtime.links.http.hot_routes.Shortcut` for the requests with one head."""

    def __init__(self, swift: Swift, ready: Ready) -> None:
        self._swift = swift
        self.ready = ready

    def start(self, body: Body, turn: Turn, begun: Begun | None = None) -> GiveUp | None:
        form, served = self.ready.form(body), self.ready.served
        if form is None or served is None:
            return None
        begun = begun or self._swift.begin(self.ready, turn)
        return self._swift.take(self.ready, served, form, body, turn, begun) if begun is not None else None

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        if body_bytes > self._swift.max_body_bytes:
            return None
        form, served = self.ready.find(peek(self.ready.json_bytes), body_bytes), self.ready.served
        begun = self._swift.begin(self.ready, turn) if served is not None else None
        if served is None or begun is None:
            return None
        coming = Coming(self._swift, self, turn, begun)
        if form is not None:
            try:
                served.batcher.foresee(form.rows, Deadline(begun.expires_s), priority=form.wishes[-1])
            except FoothillError as error:
                served.statistics.failed(coming.waited_s * 1000.0)
                coming.refuse(error)
                return None
        self._swift.awaited.set(coming, begun.expires_s)
        return coming


class Coming:
    """`runtime.links.http.hot_routes.Coming`: a request that began this way, and whose body has still to come."""

    def __init__(self, swift: Swift, way: Way, turn: Turn, begun: Begun) -> None:
        self._swift = swift
        self._way = way
        self._turn = turn
        self._begun = begun
        swift.accounts.in_flight.count += 1

    @property
    def waited_s(self) -> float:
        return self._swift.clock() - self._begun.arrived_s

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        self._swift.awaited.clear(self)
        self._swift.accounts.in_flight.count -= 1
        return self._way.start(body, turn, self._begun)

    def give_up(self) -> None:
        self._swift.awaited.clear(self)
        account = self._account()
        account.failed("client-gone", CLIENT_GONE)
        self._swift.accounts.close(account)

    def refuse(self, error: Exception) -> None:
        self._turn.done(self._swift.refusal(self._way.ready, self._turn, error, self._account()))

    def _account(self) -> Account:
        return self._swift.accounts.account(self._begun.arrived_s, self._way.ready.told.model, {})


class Swift:
    """One route's. `holder` and `admission` as for `Answers`."""

    def __init__(
        self,
        answers: Answers,
        accounts: Accounts,
        host: ModelHost,
        holder: Holder | None,
        admission: Admission | None,
        clock: Clock,
        wall: Clock,
        *,
        max_body_bytes: int,
    ) -> None:
        self.host = host
        self.max_body_bytes = max_body_bytes
        self._answers = answers
        self.accounts = accounts
        self._holder = holder
        self._admission = admission
        self.clock = clock
        self.awaited: Alarm[Coming] = Alarm(lambda coming: coming.refuse(too_slow()), clock)
        self._wall = wall

    def prepare(self, request: Known) -> Way | None:
        """`runtime.links.http.hot_routes.Prepare`."""
        json_bytes = short_length(request.headers.get(oip.HEADER_LENGTH))
        try:
            told = self._answers.told(request)
        except FoothillError:
            return None
        return Way(self, Ready(self.host, request, told, json_bytes)) if json_bytes else None

    def begin(self, ready: Ready, turn: Turn) -> Begun | None:
        """None for a caller that is not admitted, or not known yet, or asks on no terms: the story says so."""
        arrived_s, told = self.clock(), ready.told
        if turn.varied:
            try:
                told = self._answers.told_again(told, turn.varied)
            except FoothillError:
                return None
        grant, hop = ANYBODY, None
        if told.marked or self._admission is not None:
            request = ready.request.again(turn.request_id, turn.varied)
            admitted = self._admitted(request, told.model)
            if admitted is None:
                return None
            grant, hop = admitted, self._answers.hop(request)
        return Begun(told, arrived_s, self._answers.expires_s(told, arrived_s), grant, hop)

    def take(self, ready: Ready, served: Served, form: Form, body: Body, turn: Turn, begun: Begun) -> GiveUp | None:
        """Lets a request into the batcher. None where it is answered already."""
        _, _, timeout_us, priority = form.wishes
        begun_s = self.clock()
        inputs = form.tensors(body)
        self.accounts.in_flight.count += 1
        ask = Ask(
            rows=form.rows,
            key=form.key,
            level=level_of(priority),
            since_s=self.clock(),
            expires_at_s=min(begun.expires_s, begun_s + timeout_us / 1e6) if timeout_us else begun.expires_s,
            inputs=inputs,
            asker=self,
            wants_reading=begun.hop is not None,
            ready=ready,
            served=served,
            form=form,
            body=body,
            turn=turn,
            tell=turn.done,
            terms=begun.told.terms,
            grant=begun.grant,
            hop=begun.hop,
            begun_s=begun_s,
        )
        if ask.grant is not ANYBODY and not self._is_granted(ask):
            return None
        served.enter()
        try:
            served.batcher.join(ask)
        except FoothillError as error:
            self.failed(ask, error)
            return None
        return lambda: self._give_up(ask)

    def answered(self, run: Answered, mine: Sequence[tuple[Waiting, int]]) -> None:
        asks = cast(Sequence[tuple[Ask, int]], mine)
        served, kept = asks[0][0].served, Kept()
        served.leave(len(asks))
        try:
            self._answer(asks, run, kept)
        except Exception as error:  # noqa: BLE001 - none of them may be lost
            for ask in [ask for ask, _ in asks if ask.task is None and ask.tell is not _nobody]:
                self._refuse(ask, error, self._account(ask))
        finally:
            self._count(served, kept)

    def failed(self, waiting: Waiting, error: Exception) -> None:
        ask = cast(Ask, waiting)
        ask.served.leave()
        if isinstance(error, FoothillError):
            ask.served.statistics.failed((self.clock() - ask.begun_s) * 1000.0)
        self._refuse(ask, error, self._account(ask))

    def _admitted(self, request: Incoming, model: str) -> Grant | None:
        """None for who is not, or is not known yet: the story says so."""
        if self._admission is None:
            return ANYBODY
        try:
            return self._admission.check_now(request.headers, request.request_id, model)
        except FoothillError:
            return None

    def _is_granted(self, ask: Ask) -> bool:
        """Whether the caller may ask just this; who may not is told."""
        try:
            ask.terms = self._answers.narrowed(ask.terms, ask.grant)
            ask.grant.count_body(len(ask.body))
        except FoothillError as error:
            self._refuse(ask, error, self._account(ask))
            return False
        return True

    def _answer(self, asks: Sequence[tuple[Ask, int]], run: Answered, kept: Kept) -> None:
        """Sends out the answers that are `kept`, and notes them there; a task sees to the others."""
        ran_s, confidences, served = self.clock(), run.whole.readings.confidences, asks[0][0].served
        pages = Pages(served.forms, run.whole)
        for ask, at in asks:
            reason, certified, drawn = self._glance(ask, confidences[at])
            page = pages.body(ask.form, at) if reason and not drawn else None
            if page is None:
                ask.task = asyncio.create_task(self._finish(ask, run.result(ask, at), drawn=drawn))
                continue
            body, json_bytes = page
            answer = Outgoing(200, {}, body, self._answers.fixed(served, OCTETS, json_bytes, reason, certified))
            times = self._tell(ask, at, answer, run, ran_s)
            if times is not None:
                kept.setdefault(reason, []).append((ask.rows, times))

    def _glance(self, ask: Ask, confidence: float | None) -> tuple[str, bool, bool]:
        """The reason why an answer is kept, "" where it may not be; whether that is certified; whether an audit is
        drawn."""
        if self._holder is None or ask.hop is not None:
            return self._answers.reason, False, False
        verdict, drawn = self._holder.glance(confidence, ask.served.loaded.stratum, ask.terms)
        return verdict.reason if verdict.action == "accept" else "", verdict.certified, drawn

    def _tell(self, ask: Ask, at: int, answer: Outgoing, run: Answered, ran_s: float) -> Times | None:
        """The times of a request that is answered now; None where now is too late."""
        now_s, sure = self.clock(), run.whole.readings.confidences[at]
        times = (
            (ask.since_s - ask.begun_s) * 1000.0,
            (run.started_s - ask.since_s) * 1000.0,
            run.infer_ms,
            (now_s - ran_s) * 1000.0,
            (now_s - ask.begun_s) * 1000.0,
        )
        if now_s >= ask.expires_at_s:
            account = self._account(ask)
            account.phases_ms.update(zip(PHASES[:-1], times[:-1], strict=True))
            self._refuse(ask, passed("the answer was written"), account)
            return None
        confidence = "" if sure is None else f"{headers.CONFIDENCE}: {sure!r}\r\n"
        answer.lines = _LINES % (ask.turn.request_id, *times, confidence)
        if ask.hop is not None:
            for_hop(answer, run.whole.readings.answer(at), self.host)
        tell, ask.tell = ask.tell, _nobody
        tell(answer)
        return times

    def _count(self, served: Served, kept: Kept) -> None:
        """Requests that were answered."""
        if not kept:
            return
        for reason, alike in kept.items():
            self.accounts.answered(served.loaded.manifest.model, reason, PHASES, [times for _, times in alike])
        every = [times for alike in kept.values() for _, times in alike]
        rows = sum([rows for alike in kept.values() for rows, _ in alike])
        served.statistics.succeeded(every, rows=rows, now_s=self._wall())
        decode_ms, queue_ms, infer_ms, _, _ = [sum(phase) / len(every) for phase in zip(*every, strict=True)]
        self.host.note(queue_ms, decode_ms + infer_ms, len(every))

    async def _finish(self, ask: Ask, result: BatchResult, *, drawn: bool) -> None:
        """As the story does, from where the model has answered."""
        told, account = ask.ready.told, self._account(ask)
        request = ask.ready.request.again(ask.turn.request_id, ask.turn.varied)
        call = Call(
            request,
            told.model,
            told.version,
            ask.terms,
            Deadline(ask.expires_at_s),
            ask.hop,
            ask.grant,
            ask.served,
            account,
            account.phases_ms,
            ask.body,
            ask.begun_s,
            rows=ask.rows,
            asked=Asked(dict(ask.inputs), *ask.form.wishes),
        )
        try:
            answer = await self._answers.finish(call, result, self._answers.judge(call, result, drawn=drawn))
        except Exception as error:  # noqa: BLE001 - none of them may be lost
            answer = self.accounts.refusal(error, request, account)
        self._end(ask, answer, account)

    def refusal(self, ready: Ready, turn: Turn, error: Exception, account: Account) -> Outgoing:
        """The last of an account."""
        answer = self.accounts.refusal(error, ready.request.again(turn.request_id, turn.varied), account)
        self.accounts.close(account)
        return answer

    def _refuse(self, ask: Ask, error: Exception, account: Account) -> None:
        """Unless it has ended already."""
        tell, ask.tell = ask.tell, _nobody
        if tell is not _nobody:
            tell(self.refusal(ask.ready, ask.turn, error, account))

    def _end(self, ask: Ask, answer: Outgoing, account: Account) -> None:
        """Unless it has ended already."""
        tell, ask.tell = ask.tell, _nobody
        if tell is not _nobody:
            self.accounts.close(account)
            tell(answer)

    def _give_up(self, ask: Ask) -> None:
        """Its caller is gone."""
        account = self._account(ask)
        account.failed("client-gone", CLIENT_GONE)
        self.accounts.close(account)
        ask.tell = _nobody
        if ask.task is not None:
            ask.task.cancel()
        elif ask.served.batcher.leave(ask):
            ask.served.leave()

    def _account(self, ask: Ask) -> Account:
        phases_ms = {"decode": (ask.since_s - ask.begun_s) * 1000.0}
        return self.accounts.account(ask.begun_s, ask.ready.told.model, phases_ms)


def _nobody(_: Outgoing) -> None:
    """The caller is gone."""
