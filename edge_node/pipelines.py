"""The node's own way to answers, for what runs in its process, such as cameras: the edge's at once, the cloud's where
the live certificate asks for it, and a late one when the cloud is back."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping

import msgspec

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.manifest import Manifest
from contracts.timing import TOTAL, format_server_timing
from edge_node.late import LatePart
from edge_node.spool_file import Doubtful, LateAnswer
from runtime.links.escalation.clouds import Departed
from runtime.links.escalation.holder import Evidence, Holder, Judged, Settled, essence_of
from runtime.links.http.accounts import Account, Accounts
from runtime.links.http.upstream import Answer, Request, answer_headers
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.answers import UNSETTLED
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.engines.tensors import Array
from runtime.serving.models import oip, postprocess
from runtime.serving.models.batcher import BatchResult
from runtime.serving.models.hosting import ModelHost, Served
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.models.postprocess import Reading, Stamp
from runtime.serving.pictures.picture import Size

log = logging.getLogger(__name__)

TENANT = ":pipelines"
"""Whose requests these are in the spool. Tokens, and the tickets given for them, cannot have this name: no caller sees
them."""

ESCALATE = "escalate"
"""The phase of asking the cloud."""

Hearer = Callable[[LateAnswer], None]
Denier = Callable[[bytes], bool]


class Seen(msgspec.Struct, frozen=True):
    """What the edge says: its outputs by name, and what can be read of them. It stands until `settle` knows better.

    `final`: nothing is left to settle. Otherwise the cloud is to be asked, now or later, or an audit was drawn; audits
    are worth something because nobody picks them, so that whoever settles some has to settle those `audited`.
    """

    model: str
    terms: Terms
    deadline: Deadline
    outputs: Mapping[str, Array]
    reading: Reading
    judged: Judged
    edge: Answer
    manifest: Manifest

    @property
    def request_id(self) -> str:
        return self.terms.request_id

    @property
    def final(self) -> bool:
        return self.judged.kept

    @property
    def audited(self) -> bool:
        return self.judged.audited


class Looked(msgspec.Struct, frozen=True):
    """One run: its outputs by name, what can be read of them, and the phases of it in ms. Nobody has judged it yet."""

    outputs: Mapping[str, Array]
    reading: Reading
    loaded: LoadedModel
    named: Mapping[str, str]
    phases_ms: Mapping[str, float]


class Outcome(msgspec.Struct, frozen=True):
    """`settled` is the answer: the body of `/v1/predict`, of the edge's bundle (empty where it defines none) or of the
    cloud's. `late`: the cloud's comes later, under the same request id, to those who hear."""

    settled: Settled
    late: bool


class Pipelines:
    """Who asks here holds its requests: they are judged, escalated, audited and spooled as those of direct callers.

    `late` None keeps nothing for a cloud that is away. `hearers` are told of late answers, after a restart again of
    those that the fleet has not heard of. `deniers` say of the note of what waits whether it must not go any more. They
    must not block.
    """

    def __init__(
        self,
        host: ModelHost,
        holder: Holder,
        settings: ServingSettings,
        telemetry: Telemetry,
        *,
        late: LatePart | None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._holder = holder
        self._settings = settings
        self._late = late
        self._clock = clock
        self._wall = wall
        rim = settings.rim(telemetry, clock)
        self._looks, self._settlements = Accounts("look", rim), Accounts("settle", rim)
        self.hearers: list[Hearer] = []
        self.deniers: list[Denier] = []
        if late is not None:
            late.hearers.append(self._hear)
            late.deniers.append(self._denies)

    def hold(self) -> Callable[[], None]:
        """Nothing that waits for the cloud goes before what this returns is called: who denies may not know yet."""
        held = asyncio.Event()
        if self._late is not None:
            self._late.held.append(held)
        return held.set

    async def look(self, model: str, inputs: Mapping[str, Array], terms: Terms, *, priority: int = 0) -> Seen:
        """Runs the model, in one queue with everybody's requests. The deadline counts from now, for `settle` too.

        Raises FoothillError: `model_not_found`, `bad_tensor` (also where what comes out is no number), what the queue
        refuses with, or `internal`.
        """
        with self._looks.opened() as account:
            deadline = self._deadline(terms, account.started_s)
            looked = await self._run(model, inputs, deadline, priority, account)
            seen = self._judged(looked, terms, deadline, looked.reading.confidence, looked.reading.answer)
            account.answered("edge", seen.judged.verdict.reason, account.phases_ms)
        return seen

    @property
    def departures(self) -> list[Departed]:
        """Who is told of each request that has gone to a cloud, whosever it is."""
        return self._holder.departures

    def loaded(self, model: str) -> LoadedModel:
        """What answers for a model now; a moment later it may be another. Raises FoothillError `model_not_found`."""
        return self._host.get(model).loaded

    async def run(self, model: str, inputs: Mapping[str, Array], deadline_ms: float, *, priority: int = 0) -> Looked:
        """As `look`, for who judges parts of what was seen, and not all of it at once. Raises what `look` does."""
        with self._looks.opened() as account:
            deadline = Deadline.after(deadline_ms, now_s=account.started_s)
            looked = await self._run(model, inputs, deadline, priority, account)
            account.answered("edge", UNSETTLED, account.phases_ms)
        return looked

    def may_ask(self, terms: Terms) -> bool:
        """Whether there is a cloud that may have such a request, now or later."""
        return self._holder.may_ask_cloud(terms)

    def judge(self, looked: Looked, terms: Terms, *, confidence: float | None, answer: str) -> Seen:
        """What is to become of a part of what was seen, by how sure the edge is of it and by what it says. The deadline
        counts from now."""
        return self._judged(looked, terms, self._deadline(terms, self._clock()), confidence, answer)

    async def settle(
        self,
        seen: Seen,
        body: bytes,
        content_type: str,
        *,
        picture: Size | None = None,
        note: bytes = b"",
        essence: Callable[[Answer], str] = essence_of,
    ) -> Outcome:
        """The last word on what was seen, at the latest when its deadline is over. Raises nothing of its own.

        `body` is what the cloud is asked with, as `/v1/predict` takes it: a picture, or a tensor map. It leaves the
        node only for a cloud inside the residency claim, and waits in the spool for one that is away. Who hears a late
        answer gets the `note` with it. `essence` as in `Holder.settle`. Boxes of the edge's answer are in pixels of the
        `picture`, or of the model's own.
        """
        named = {"Content-Type": content_type, headers.REQUEST_ID: seen.request_id, **seen.terms.claim()}
        if seen.terms.traceparent:
            named[headers.TRACEPARENT] = seen.terms.traceparent
        request = Request("POST", f"/v1/predict/{seen.model}", named, body)
        settled = await self._settle(seen, request, essence)
        late = False
        if self._late is not None and settled.open:
            late = await self._late.spooling.put(
                TENANT, seen.model, request, seen.edge, seen.terms, seen.deadline, note=note
            )
        if settled.tier == "edge":
            answer = msgspec.structs.replace(settled.answer, body=self._edge_body(seen, settled.reason, picture))
            settled = msgspec.structs.replace(settled, answer=answer)
        return Outcome(settled, late)

    async def _settle(self, seen: Seen, request: Request, essence: Callable[[Answer], str]) -> Settled:
        """Counted where there was something to decide, with the time that the cloud took; the rest was counted."""
        settling = self._holder.settle(
            request,
            seen.edge,
            seen.terms,
            seen.deadline,
            model=seen.model,
            judged=seen.judged,
            essence=essence,
        )
        if seen.final:
            return await settling
        with self._settlements.opened(seen.model) as account:
            settled = await settling
            account.answered(settled.tier, settled.reason, {}, region=settled.region)
            if ESCALATE in settled.phases:
                account.phases_ms = {ESCALATE: settled.phases[ESCALATE]}
            return settled

    def _deadline(self, terms: Terms, now_s: float) -> Deadline:
        return Deadline.after(terms.deadline_ms or self._settings.default_deadline_ms, now_s=now_s)

    async def _run(
        self, model: str, inputs: Mapping[str, Array], deadline: Deadline, priority: int, account: Account
    ) -> Looked:
        with self._host.get(model) as served:
            account.model = model
            result = await self._answered(served, inputs, deadline, priority, account)
            return Looked(result.outputs, result.reading, served.loaded, served.named, account.phases_ms)

    async def _answered(
        self, served: Served, inputs: Mapping[str, Array], deadline: Deadline, priority: int, account: Account
    ) -> BatchResult:
        oip.check_arrays(inputs, served.loaded.manifest)
        try:
            result = await served.batcher.submit(inputs, deadline, priority=priority, wants_reading=True)
            postprocess.check_numbers(result.outputs, result.reading, served.loaded.manifest, from_tensors=True)
        except FoothillError:
            served.statistics.failed((self._clock() - account.started_s) * 1000.0)
            raise
        total_ms = (self._clock() - account.started_s) * 1000.0
        account.phases_ms = {"queue": result.queue_ms, "infer": result.infer_ms, TOTAL: total_ms}
        self._host.note(result.queue_ms, result.infer_ms)
        rows = len(next(iter(inputs.values()))) if served.batches else 1
        times_ms = (0.0, result.queue_ms, result.infer_ms, 0.0, total_ms)
        served.statistics.succeeded([times_ms], rows=rows, now_s=self._wall())
        return result

    def _judged(self, looked: Looked, terms: Terms, deadline: Deadline, confidence: float | None, answer: str) -> Seen:
        terms = msgspec.structs.replace(terms, request_id=terms.request_id or uuid.uuid4().hex)
        loaded = looked.loaded
        evidence = Evidence(confidence, loaded.stratum, loaded.digest, answer)
        told = {
            **looked.named,
            "Content-Type": "application/json",
            headers.NODE: self._settings.node,
            headers.ANSWER: answer,
            headers.SERVER_TIMING: format_server_timing(looked.phases_ms),
        }
        if confidence is not None:
            told[headers.CONFIDENCE] = repr(confidence)
        return Seen(
            model=loaded.manifest.model,
            terms=terms,
            deadline=deadline,
            outputs=looked.outputs,
            reading=looked.reading,
            judged=self._holder.judge(evidence, terms, deadline),
            edge=Answer(200, answer_headers(told), b""),
            manifest=loaded.manifest,
        )

    def _edge_body(self, seen: Seen, reason: str, picture: Size | None) -> bytes:
        """What `/v1/predict` would answer here; b"" where it would answer nothing."""
        manifest = seen.manifest
        no_head = manifest.task == "detection" and manifest.postprocess.detector is None
        if no_head or len(seen.outputs[manifest.postprocess.output]) != 1:
            return b""
        stamp = Stamp(seen.model, "edge", self._settings.node, reason, seen.request_id)
        return msgspec.json.encode(postprocess.predict(seen.outputs, seen.reading, manifest, stamp, picture))

    def _denies(self, doubtful: Doubtful) -> bool:
        return doubtful.tenant == TENANT and any(denies(doubtful.note) for denies in self.deniers)

    def _hear(self, late: LateAnswer) -> None:
        for hearer in self.hearers if late.tenant == TENANT else ():
            _tell(hearer, late)


def _tell(hearer: Hearer, late: LateAnswer) -> None:
    try:
        hearer(late)
    except Exception:
        log.exception("a pipeline did not take the late answer to its request %s", late.request_id)
