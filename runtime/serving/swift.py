"""The swift way of inference: requests like others before them, taken in and answered many at once, without tasks.

Only what differs between two requests of one caller is looked at for each: its tensors, its times, its id. All the rest
was read before, by the story in `answers`, which also tells whatever is out of the ordinary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from contracts import headers, oip
from contracts.deadlines import Deadline, passed
from contracts.errors import FoothillError
from contracts.headers import Terms
from runtime.links.access.admission import Admission
from runtime.links.access.grants import ANYBODY, Grant
from runtime.links.access.hop import Hop
from runtime.links.escalation.holder import Holder
from runtime.links.http.exchanges import Clock, Incoming, Known, Outgoing
from runtime.links.http.hot_routes import Start
from runtime.serving.accounts import CLIENT_GONE, Account, Accounts
from runtime.serving.answers import Answers, Told, for_hop
from runtime.serving.batcher import Answered, BatchResult, Waiting
from runtime.serving.batching.line import level_of
from runtime.serving.calls import Call
from runtime.serving.forms import Form, short_length
from runtime.serving.hosting import ModelHost, Served
from runtime.serving.oip import OCTETS, Asked
from runtime.serving.pages import Pages
from runtime.serving.statistics import PHASES, Times

Done = Callable[[Outgoing], None]
GiveUp = Callable[[], None]
Kept = dict[str, list[tuple[int, Times]]]
"""The rows and the times of each request that was answered, by the reason why its answer was kept."""

_LINES = (
    f"{headers.REQUEST_ID}: %s\r\n{headers.SERVER_TIMING}: {', '.join([f'{phase};dur=%.3f' for phase in PHASES])}\r\n%s"
)


class Ready:
    """The head of a request, and what it means for all that have the very same."""

    __slots__ = ("_form", "_json_bytes", "_served", "_swift", "request", "told")

    def __init__(self, swift: Swift, request: Known, told: Told, json_bytes: int) -> None:
        self._swift = swift
        self._json_bytes = json_bytes
        self._served: Served | None = None
        self._form: Form | None = None
        self.request = request
        self.told = told

    def start(self, body: bytes, request_id: str, done: Done) -> GiveUp | None:
        """`runtime.links.http.hot_routes.Start`."""
        served, form = self._swift.host.models.get(self.told.model), self._form
        if served is not self._served or form is None or len(body) != form.body_bytes or not body.startswith(form.json):
            self._served = served
            form = self._form = self._find(served, body)
        if served is None or form is None:
            return None
        return self._swift.take(self, served, form, body, request_id, done)

    def _find(self, served: Served | None, body: bytes) -> Form | None:
        """None for what is new here, or is not served."""
        if served is None or self.told.version not in ("", served.loaded.manifest.version):
            return None
        return served.forms.find(body[: self._json_bytes], len(body))


class Ask(Waiting, kw_only=True, eq=False):
    """One request on this way. It was here as a whole at `begun_s`; `tell` gets its answer."""

    ready: Ready
    served: Served
    form: Form
    body: bytes
    request_id: str
    tell: Done
    terms: Terms
    grant: Grant
    hop: Hop | None
    begun_s: float
    task: asyncio.Task[None] | None = None


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
    ) -> None:
        self.host = host
        self._answers = answers
        self._accounts = accounts
        self._holder = holder
        self._admission = admission
        self._clock = clock
        self._wall = wall

    def prepare(self, request: Known) -> Start | None:
        """`runtime.links.http.hot_routes.Prepare`."""
        json_bytes = short_length(request.headers.get(oip.HEADER_LENGTH))
        try:
            told = self._answers.told(request)
        except FoothillError:
            return None
        return Ready(self, request, told, json_bytes).start if json_bytes else None

    def take(self, ready: Ready, served: Served, form: Form, body: bytes, request_id: str, done: Done) -> GiveUp | None:
        """Lets a request into the batcher. None leaves it to the story, or says that it is answered already."""
        begun_s, told = self._clock(), ready.told
        grant, hop = ANYBODY, None
        if told.marked or self._admission is not None:
            request = ready.request.again(request_id)
            admitted = self._admitted(request, told.model)
            if admitted is None:
                return None
            grant, hop = admitted, self._answers.hop(request)
        _, _, timeout_us, priority = form.wishes
        expires_s = self._answers.expires_s(told, begun_s)
        inputs = form.tensors(body)
        self._accounts.in_flight.count += 1
        ask = Ask(
            rows=form.rows,
            key=form.key,
            level=level_of(priority),
            since_s=self._clock(),
            expires_at_s=min(expires_s, begun_s + timeout_us / 1e6) if timeout_us else expires_s,
            inputs=inputs,
            asker=self,
            ready=ready,
            served=served,
            form=form,
            body=body,
            request_id=request_id,
            tell=done,
            terms=told.terms,
            grant=grant,
            hop=hop,
            begun_s=begun_s,
        )
        if grant is not ANYBODY and not self._is_granted(ask):
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
            ask.served.statistics.failed((self._clock() - ask.begun_s) * 1000.0)
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
        ran_s, confidences, served = self._clock(), run.whole.readings.confidences, asks[0][0].served
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
        now_s, sure = self._clock(), run.whole.readings.confidences[at]
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
        answer.lines = _LINES % (ask.request_id, *times, confidence)
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
            self._accounts.answered(served.loaded.manifest.model, reason, [times for _, times in alike])
        every = [times for alike in kept.values() for _, times in alike]
        rows = sum([rows for alike in kept.values() for rows, _ in alike])
        served.statistics.succeeded(every, rows=rows, now_s=self._wall())
        decode_ms, queue_ms, infer_ms, _, _ = [sum(phase) / len(every) for phase in zip(*every, strict=True)]
        self.host.note(queue_ms, decode_ms + infer_ms, len(every))

    async def _finish(self, ask: Ask, result: BatchResult, *, drawn: bool) -> None:
        """As the story does, from where the model has answered."""
        request, told, account = ask.ready.request.again(ask.request_id), ask.ready.told, self._account(ask)
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
            answer = self._accounts.refusal(error, request, account)
        self._end(ask, answer, account)

    def _refuse(self, ask: Ask, error: Exception, account: Account) -> None:
        request = ask.ready.request.again(ask.request_id)
        self._end(ask, self._accounts.refusal(error, request, account), account)

    def _end(self, ask: Ask, answer: Outgoing, account: Account) -> None:
        """Unless it has ended already."""
        tell, ask.tell = ask.tell, _nobody
        if tell is not _nobody:
            self._accounts.close(account)
            tell(answer)

    def _give_up(self, ask: Ask) -> None:
        """Its caller is gone."""
        account = self._account(ask)
        account.failed("client-gone", CLIENT_GONE)
        self._accounts.close(account)
        ask.tell = _nobody
        if ask.task is not None:
            ask.task.cancel()
        elif ask.served.batcher.leave(ask):
            ask.served.leave()

    def _account(self, ask: Ask) -> Account:
        phases_ms = {"decode": (ask.since_s - ask.begun_s) * 1000.0}
        return self._accounts.account(ask.begun_s, ask.ready.told.model, phases_ms)


def _nobody(_: Outgoing) -> None:
    """The caller is gone."""
