"""The story of a request that runs a model: from its terms to its answer, settled by whoever holds it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from contracts import headers, oip
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.timing import TOTAL, format_server_timing
from runtime.links.access.admission import Admission
from runtime.links.access.grants import ANYBODY, Grant
from runtime.links.access.hop import Hop, verify_hop
from runtime.links.escalation.holder import Evidence, Holder, Judged, outward_headers
from runtime.links.http.accounts import Account
from runtime.links.http.exchanges import Clock, Fixed, Incoming, Outgoing, Varied
from runtime.links.http.upstream import Answer, Request, answer_headers
from runtime.links.process.loop_lag import LoopLag
from runtime.serving.answering.calls import Call
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.answering.work import Later, Work
from runtime.serving.answering.workers import Workers
from runtime.serving.models.batcher import BatchResult
from runtime.serving.models.hosting import ModelHost, Served
from runtime.serving.models.oip import Encoded
from runtime.serving.models.postprocess import Reading
from runtime.serving.models.statistics import PHASES, Times

_WAY_SHARE, _WAY_S, _LAG_SHARE = 0.01, 0.005, 0.1
"""Of its time, a request leaves so much to its way, 5 ms of them at most; and no more than the last to the event loop's
lag: one that stood still once refuses nobody."""
UNSETTLED = "unsettled"
"""The reason on an answer whose holder has yet to decide."""


class Told(NamedTuple):
    """What the head of a request says. `marked`: whether it bears a hop's mark, which holds for one request only."""

    terms: Terms
    model: str
    version: str
    deadline_s: float
    marked: bool


class Spools(Protocol):
    """Where a request waits for a cloud that cannot be asked now."""

    async def keep(self, call: Call, request: Request, edge: Answer) -> str:
        """The value of `Foothill-Late` for its caller; "" where no late answer can be promised. Raises nothing."""
        ...


class Answers:
    """`holder` settles the requests of callers that no other hop holds; without one they are answered as they are.
    Without `admission` nobody is asked who calls; without `spool` what the cloud should have answered is not kept."""

    def __init__(
        self,
        work: Work,
        host: ModelHost,
        settings: ServingSettings,
        workers: Workers,
        holder: Holder | None,
        clock: Clock,
        wall: Clock,
        *,
        lag: LoopLag,
        admission: Admission | None = None,
        spool: Spools | None = None,
    ) -> None:
        self._work = work
        self._admission = admission
        self._spool = spool
        self._lag = lag
        self._host = host
        self._settings = settings
        self._workers = workers
        self._holder = holder
        self._clock = clock
        self._wall = wall
        self.reason = "cloud" if settings.tier == "cloud" else UNSETTLED

    async def answer(self, request: Incoming, account: Account) -> Outgoing:
        """The whole story. Raises FoothillError."""
        if self._admission is not None and request.grant is None:
            request.grant = await self._admission.check(request.headers, request.request_id, request.params["model"])
        call = self._begin(request, account)
        self._foresee(call)
        body = await request.read(self._settings.max_body_bytes, call.deadline, self._clock)
        call.take(body, self._clock())
        # While the body was on its way, another bundle may have taken over.
        with self._host.get(call.model, call.version) as call.served:
            try:
                asked = self._work.read(call)
                call.grant.count_body(len(body))
                if isinstance(asked, Later):
                    asked = await self._workers.run(asked.run, call.deadline)
            finally:
                call.decoded(self._clock())
            call.ask(asked)
            try:
                reads = self._work.wants_reading or call.hop is not None
                result = await call.served.batcher.submit(
                    asked.inputs, call.deadline, priority=asked.priority, wants_reading=reads
                )
            except FoothillError:
                self.refused(call)
                raise
        return await self.finish(call, result, self.judge(call, result))

    def _foresee(self, call: Call) -> None:
        """Raises Refused before a body is read for nothing: its caller need not send the rest, nor anybody read it."""
        foreseen = self._work.foresee(call)
        if foreseen is not None:
            try:
                call.served.batcher.foresee(foreseen.rows, call.deadline, priority=foreseen.priority)
            except FoothillError:
                call.started_s = call.account.started_s
                self.refused(call)
                raise

    def told(self, request: Incoming) -> Told:
        """Raises FoothillError `bad_request` or `residency_denied`."""
        terms = headers.parse_terms(request.headers)
        self._check_residency(terms)
        deadline_ms = terms.deadline_ms or self._settings.default_deadline_ms
        model, version = request.params["model"], request.params.get("version", "")
        return Told(terms, model, version, deadline_ms / 1000.0, headers.HOP in request.headers)

    def told_again(self, told: Told, varied: Varied) -> Told:
        """What the head of a request says that is alike one that was told. Raises FoothillError `bad_request`."""
        terms = headers.renewed(told.terms, varied)
        deadline_ms = terms.deadline_ms or self._settings.default_deadline_ms
        return Told(terms, told.model, told.version, deadline_ms / 1000.0, told.marked)

    def expires_s(self, told: Told, arrived_s: float) -> float:
        """The deadline of a request, less what its caller may lose before it is met here and again after its answer."""
        way_s = min(_WAY_S, _WAY_SHARE * told.deadline_s)
        lag_s = min(2.0 * self._lag.seconds, _LAG_SHARE * told.deadline_s)
        return arrived_s + told.deadline_s - max(way_s, lag_s)

    def narrowed(self, terms: Terms, grant: Grant) -> Terms:
        """The request's terms within what its caller was granted. Raises FoothillError `residency_denied`."""
        if not grant.residency:
            return terms
        terms = grant.narrow(terms)
        self._check_residency(terms)
        return terms

    def hop(self, request: Incoming) -> Hop | None:
        """Who verifiably sent it on."""
        mark = request.headers.get(headers.HOP)
        if self._settings.hop_key is None or mark is None:
            return None
        return verify_hop(self._settings.hop_key, mark, request.request_id, self._wall())

    def judge(self, call: Call, result: BatchResult, *, drawn: bool | None = None) -> Judged | None:
        """What becomes of an answer; None where that is not settled here: another hop holds it, or nobody does.

        `drawn`: whether it was drawn for an audit, where that is known.
        """
        call.ran_s = self._clock()
        call.phases_ms["queue"] = result.queue_ms
        call.phases_ms["infer"] = result.infer_ms
        self._host.note(result.queue_ms, call.phases_ms["decode"] + result.infer_ms)
        if call.hop is not None or self._holder is None:
            return None
        loaded, reading = call.served.loaded, result.reading
        # Without a confidence nothing is compared, and what a detector has found need not be worked out.
        answer = reading.answer if reading.confidence is not None else ""
        evidence = Evidence(reading.confidence, loaded.stratum, loaded.digest, answer)
        return self._holder.judge(evidence, call.terms, call.deadline, drawn=drawn)

    async def finish(self, call: Call, result: BatchResult, judged: Judged | None) -> Outgoing:
        """The answer to what the model has said. Raises FoothillError."""
        body = self._work.write(call, result, self._reason_of(judged))
        if isinstance(body, Later):
            body = await self._workers.run(body.run, call.deadline)
        local = self._local(call, result.reading, body, judged)
        if judged is None or judged.kept:
            return local
        return await self._settle(call, for_hop(local, result.reading.answer, self._host), judged)

    def fixed(
        self, served: Served, content_type: str, header_length: int | None, reason: str, certified: bool
    ) -> Fixed:
        """The headers of which a model has few sets."""
        key = (content_type, header_length, reason, certified)
        fixed = served.fixed.get(key)
        if fixed is None:
            named = {
                "Content-Type": content_type,
                headers.TIER: self._settings.tier,
                headers.NODE: self._settings.node,
                headers.REASON: reason,
                headers.CERTIFIED: "true" if certified else "false",
                headers.DEGRADED: "false",
                **served.named,
            }
            if header_length is not None:
                named[oip.HEADER_LENGTH] = str(header_length)
            fixed = served.fixed.put(key, Fixed(named))
        return fixed

    def refused(self, call: Call) -> None:
        call.served.statistics.failed((self._clock() - call.started_s) * 1000.0)

    def _begin(self, request: Incoming, account: Account) -> Call:
        """Everything about a request that is known before its body."""
        arrived_s = self._clock() - request.waited_s
        told = self.told(request)
        terms, model, version, _, marked = told
        grant = request.grant or ANYBODY
        terms = self.narrowed(terms, grant)
        served = self._host.get(model, version)
        account.model = model
        hop = self.hop(request) if marked else None
        deadline = Deadline(self.expires_s(told, arrived_s))
        return Call(request, model, version, terms, deadline, hop, grant, served, account, account.phases_ms)

    def _check_residency(self, terms: Terms) -> None:
        """Before the body is read, and whoever sent it here: a router's table may be older than this node's place."""
        if not terms.admit(self._settings.region):
            raise FoothillError(
                "residency_denied",
                f"{self._settings.node} stands in {self._settings.region or 'an unknown region'}, outside "
                f"{', '.join(terms.residency)}. Ask a server there, or widen Foothill-Residency.",
            )

    def _reason_of(self, judged: Judged | None) -> str:
        return judged.verdict.reason if judged is not None and judged.kept else self.reason

    def _local(self, call: Call, reading: Reading, body: Encoded, judged: Judged | None) -> Outgoing:
        """The answer as this server gives it by itself."""
        now_s = self._clock()
        call.phases_ms["encode"] = (now_s - call.ran_s) * 1000.0
        call.deadline.check(now_s, "the answer was written")
        phases_ms = call.phases_ms
        phases_ms[TOTAL] = (now_s - call.started_s) * 1000.0
        times_ms = cast(Times, tuple([phases_ms[phase] for phase in PHASES]))
        call.served.statistics.succeeded([times_ms], rows=call.rows, now_s=self._wall())
        reason = self._reason_of(judged)
        call.account.answered(self._settings.tier, reason, phases_ms)
        certified = judged is not None and judged.kept and judged.verdict.certified
        lines = (
            f"{headers.REQUEST_ID}: {call.request_id}\r\n{headers.SERVER_TIMING}: {format_server_timing(phases_ms)}\r\n"
        )
        if reading.confidence is not None:
            lines += f"{headers.CONFIDENCE}: {reading.confidence!r}\r\n"
        answer = Outgoing(
            200, {}, body.body, self.fixed(call.served, body.content_type, body.header_length, reason, certified), lines
        )
        return answer if call.hop is None else for_hop(answer, reading.answer, self._host)

    async def _settle(self, call: Call, local: Outgoing, judged: Judged) -> Outgoing:
        """What the holder makes of it, where that is this server."""
        assert self._holder is not None
        edge = Answer(200, answer_headers(local.all_headers()), local.body)
        onward = call.onward()
        settled = await self._holder.settle(
            onward,
            edge,
            call.terms,
            call.deadline,
            model=call.model,
            permit=call.grant.take_escalation,
            judged=judged,
        )
        late = await self._spool.keep(call, onward, edge) if self._spool is not None and settled.open else ""
        phases_ms = call.with_total(settled.phases, self._clock())
        call.account.answered(settled.tier, settled.reason, phases_ms, region=settled.region)
        outward = outward_headers(settled)
        outward[headers.REQUEST_ID] = call.request_id
        outward[headers.SERVER_TIMING] = format_server_timing(phases_ms)
        if late:
            outward[headers.LATE] = late
        return Outgoing(200, outward, settled.answer.body)


def for_hop(answer: Outgoing, essence: str, host: ModelHost) -> Outgoing:
    """With the headers that only a hop may see; `essence` is what can be compared of it."""
    if essence:
        answer.headers[headers.ANSWER] = essence
    answer.headers[headers.LOAD] = host.load().header()
    return answer
