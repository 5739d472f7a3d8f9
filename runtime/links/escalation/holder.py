"""The holder of a request: who alone may escalate it, and audits a random share of what it keeps."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.escalation import BUDGET, NO_CLOUD, Policy, Verdict, decide, wish_of
from contracts.headers import Terms
from contracts.messages import Audit, Certificate
from contracts.predictions import with_reason
from contracts.timing import across_hop, parse_server_timing
from contracts.topics import STRATUM
from runtime.links.escalation.clouds import Clouds, Departed
from runtime.links.escalation.late import SPOOLED
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable
from runtime.links.process.telemetry import Telemetry

log = logging.getLogger(__name__)

CLOUD_FAILED = "cloud-failed"
AUDIT_DEADLINE_MS = 10_000.0
LATE_DEADLINE_MS = 30_000.0
_RESERVE_SHARE = 0.05
_RESERVE_MOST_MS = 50.0


class Certificates:
    """The live certificate of each stratum: the one with the highest sequence."""

    def __init__(self, certificates: Iterable[Certificate] = ()) -> None:
        self._by_stratum: dict[str, Certificate] = {}
        for certificate in certificates:
            self.put(certificate)

    def put(self, certificate: Certificate) -> None:
        known = self._by_stratum.get(certificate.stratum)
        if known is None or certificate.sequence > known.sequence:
            self._by_stratum[certificate.stratum] = certificate

    def get(self, stratum: str) -> Certificate | None:
        return self._by_stratum.get(stratum)


class Settled(msgspec.Struct, frozen=True):
    """The final answer of one request and why it is that one. `phases` in ms, without the total.

    `certified` and `degraded` are those of `contracts.escalation.Verdict`, and never both. `open`: of a degraded
    answer, whether the cloud could still be asked later. `region` is that of whoever answered, as far as it is known.
    """

    answer: Answer
    tier: Literal["edge", "cloud"]
    reason: str
    certified: bool
    degraded: bool
    phases: dict[str, float]
    open: bool = False
    late: bool = False
    region: str = ""


def may_change(status: int) -> bool:
    """Whether the cloud may say something else to the same request later; any other refusal is its last word."""
    return status >= 500 or status in (401, 408, 425, 429)


def outward_headers(settled: Settled) -> dict[str, str]:
    """The headers of `settled` that its holder's caller gets; the holder adds its request id and Server-Timing."""
    return {
        **headers.relayed(settled.answer.headers, headers.RELAYED_OUT),
        **({headers.LATE: SPOOLED} if settled.late else {}),
        headers.TIER: settled.tier,
        headers.REASON: settled.reason,
        headers.CERTIFIED: str(settled.certified).lower(),
        headers.DEGRADED: str(settled.degraded).lower(),
    }


def essence_of(answer: Answer) -> str:
    """What its server says is comparable of an answer; "" where it says nothing."""
    return answer.headers.get(headers.ANSWER, "")


class Evidence(msgspec.Struct, frozen=True):
    """What an edge answer says of itself to its holder."""

    confidence: float | None
    stratum: str
    digest: str
    answer: str


class _Half(NamedTuple):
    """Of an audited pair: what the edge has said, and what `essence` of the cloud's answer it is compared with."""

    edge: Answer
    evidence: Evidence
    model: str
    essence: Callable[[Answer], str]


class Judged(msgspec.Struct, frozen=True):
    """What becomes of one edge answer, and whether its request was drawn for an audit."""

    verdict: Verdict
    audited: bool

    @property
    def kept(self) -> bool:
        """Whether the edge answer stands as it is, and nothing is left to do."""
        return self.verdict.action == "accept" and not (self.audited or self.verdict.degraded)


class Holder:
    """Settles requests: decide, escalate at most once, audit. Never makes an answer worse than the edge's.

    `node` names the answering node in audits where the answer itself does not. `cloud_region` is checked against a
    residency claim; "" (unknown) is in no claim. `budget` allows second tries at the cloud; None: one of its own.
    `clock` is monotonic, `wall` unix time, both in seconds.
    """

    def __init__(
        self,
        *,
        node: str,
        cloud_urls: Sequence[str],
        upstreams: Upstreams,
        certificates: Certificates,
        hop_key: bytes,
        hop_name: str,
        publish_audit: Callable[[Audit], None],
        telemetry: Telemetry,
        rng: random.Random,
        audit_rate: float = 0.05,
        cloud_region: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        max_audits_in_flight: int = 64,
        max_escalations_in_flight: int = 256,
        budget: RetryBudget | None = None,
    ) -> None:
        self._node = node
        self._certificates = certificates
        self._publish_audit = publish_audit
        self._telemetry = telemetry
        self._rng = rng
        self._audit_rate = audit_rate
        self._clock = clock
        self._wall = wall
        self._max_audits = max_audits_in_flight
        self._max_escalations = max_escalations_in_flight
        self._escalations = 0
        self._audits: set[asyncio.Task[None]] = set()
        self._clouds = Clouds(
            cloud_urls,
            region=cloud_region,
            upstreams=upstreams,
            budget=budget or RetryBudget(),
            hop_key=hop_key,
            hop_name=hop_name,
            telemetry=telemetry,
            clock=clock,
            wall=wall,
        )

    def glance(self, confidence: float | None, stratum: str, terms: Terms) -> tuple[Verdict, bool]:
        """Whether an edge answer is kept, as far as that can be said without the cloud, and whether it was drawn for an
        audit. One that is accepted and not drawn stands as it is; `judge` is told of the draw of any other."""
        drawn = terms.escalation != "never" and self._rng.random() < self._audit_rate
        return wish_of(confidence, self._certificates.get(stratum), terms.escalation), drawn

    def judge(self, evidence: Evidence, terms: Terms, deadline: Deadline, *, drawn: bool | None = None) -> Judged:
        """What is to become of an edge answer; `settle` does it, once, where it is not simply kept."""
        wish, draw = self.glance(evidence.confidence, evidence.stratum, terms)
        audited = self._has_pair(evidence) if (draw if drawn is None else drawn) else False
        return Judged(wish if wish.action == "accept" else self._decide(evidence, terms, deadline), audited)

    async def settle(
        self,
        request: Request,
        edge: Answer,
        terms: Terms,
        deadline: Deadline,
        *,
        model: str,
        permit: Callable[[], bool] = lambda: True,
        judged: Judged | None = None,
        drawn: bool | None = None,
        essence: Callable[[Answer], str] = essence_of,
    ) -> Settled:
        """The final answer for a request whose edge answer, with status 200, is at hand. Raises nothing of its own.

        A failed or late escalation gives the edge answer, degraded. The pair of an audited request is published now
        if it was escalated, else after the cloud was asked in the background. `permit` is asked once, before an
        escalation: whether its caller may still cost the cloud anything. `judged` is what `judge` has said to this
        request, where it was asked before, or `drawn` what `glance` has. `essence` is what of the cloud's answer is
        compared with the edge's in an audit; "" where nothing can be.
        """
        evidence = evidence_of(edge)
        half = _Half(edge, evidence, model, essence)
        judged = judged or self.judge(evidence, terms, deadline, drawn=drawn)
        verdict, audited = judged.verdict, judged.audited
        if verdict.action == "escalate" and not self._has_room():
            # Those judged at the same time have taken it.
            verdict = NO_CLOUD
        if verdict.action == "accept" or not permit():
            if audited:
                self._audit_later(request, terms, half)
            return self._kept(request, edge, verdict, terms)
        started_s = self._clock()
        cloud = await self._escalate(request, terms, deadline)
        phases = {**_edge_phases(edge), "escalate": (self._clock() - started_s) * 1000.0}
        if cloud is None or cloud.status != 200:
            if audited:
                self._telemetry.audit("failed")
            failed = Verdict("accept", verdict.reason, degraded=True)
            settled = _settled(request, edge, "edge", failed, phases, reason=CLOUD_FAILED)
            return msgspec.structs.replace(settled, open=cloud is None or may_change(cloud.status))
        if audited:
            self._publish_pair(half, cloud, kept=False)
        return _settled(request, cloud, "cloud", verdict, phases, region=self.cloud_region)

    async def ask_cloud(
        self, request: Request, terms: Terms, deadline: Deadline, *, reason: str, certified: bool = False
    ) -> Settled:
        """The cloud's answer without an edge answer: whatever it says below 500, or the last failure there was.

        Raises FoothillError `residency_denied`, `unavailable` (there is no cloud), `upstream_failed` or
        `deadline_exceeded`.
        """
        if not self.may_ask_cloud(terms):
            raise self._clouds.refusal(terms)
        try:
            answer = await self._clouds.ask(request, terms, deadline, "fallback")
        except UpstreamUnreachable as error:
            raise FoothillError("upstream_failed", f"The cloud tier cannot be reached: {error}. Try again.") from error
        phases = across_hop(answer.hop_ms, parse_server_timing(answer.headers.get(headers.SERVER_TIMING)))
        verdict = Verdict("escalate", "asked-always", certified=certified)
        return _settled(request, answer, "cloud", verdict, phases, reason=reason, region=self.cloud_region)

    async def ask_late(self, request: Request, terms: Terms) -> Answer:
        """Whatever the cloud says to a request whose caller has its edge answer, within 30 s.

        Raises UpstreamUnreachable, or FoothillError: `residency_denied` (the cloud lies outside the claim),
        `unavailable` (there is none, or its circuit is open), `deadline_exceeded`, `upstream_failed`.
        """
        if not self.may_ask_cloud(terms):
            raise self._clouds.refusal(terms)
        deadline = Deadline.after(LATE_DEADLINE_MS, now_s=self._clock())
        return await self._clouds.ask(request, terms, deadline, "late")

    def keep(self, request: Request, edge: Answer, *, reason: str, degraded: bool) -> Settled:
        """The edge answer as it is, for a request whose cloud was asked before its edge."""
        verdict = Verdict("accept", "no-cloud", degraded=degraded)
        return _settled(request, edge, "edge", verdict, _edge_phases(edge), reason=reason)

    def settled_by(self, answer: Answer) -> Settled | None:
        """The answer as its server settled it, when that server did not take this holder's mark; else None.

        Only a verified mark is answered with hop-only headers. Without them the server has escalated or kept the
        request by itself, and a second escalation would be one too many.
        """
        if headers.LOAD in answer.headers or headers.ANSWER in answer.headers:
            return None
        degraded = answer.headers.get(headers.DEGRADED) == "true"
        return Settled(
            answer,
            "cloud" if answer.headers.get(headers.TIER) == "cloud" else "edge",
            answer.headers.get(headers.REASON, ""),
            answer.headers.get(headers.CERTIFIED) == "true" and not degraded,
            degraded,
            _edge_phases(answer),
        )

    @property
    def departures(self) -> list[Departed]:
        """Who is told of each request that has gone to a cloud."""
        return self._clouds.departures

    @property
    def cloud_region(self) -> str:
        """ "" where nobody knows."""
        return self._clouds.region

    def may_ask_cloud(self, terms: Terms) -> bool:
        """Whether a cloud is configured and, under a residency claim, lies inside it."""
        return self._clouds.admitted(terms)

    def reaches_cloud(self) -> bool:
        """Whether it takes requests, as far as is known."""
        return self._clouds.reachable(self._clock())

    async def close(self) -> None:
        """Gives up the audits in flight."""
        for task in self._audits:
            task.cancel()
        await asyncio.gather(*self._audits, return_exceptions=True)

    async def _escalate(self, request: Request, terms: Terms, deadline: Deadline) -> Answer | None:
        """The cloud's answer; None where there is none in time."""
        self._escalations += 1
        try:
            return await self._clouds.ask(request, terms, self._before(deadline), "escalate")
        except (UpstreamUnreachable, FoothillError) as error:
            log.debug("escalation failed: %s", error)
            return None
        finally:
            self._escalations -= 1

    def _kept(self, request: Request, edge: Answer, verdict: Verdict, terms: Terms) -> Settled:
        """The edge answer, as the verdict has it or because the caller's escalations are used up."""
        if verdict.action == "escalate":
            return _settled(request, edge, "edge", BUDGET, _edge_phases(edge))
        settled = _settled(request, edge, "edge", verdict, _edge_phases(edge))
        return msgspec.structs.replace(settled, open=verdict.degraded and self.may_ask_cloud(terms))

    def _decide(self, evidence: Evidence, terms: Terms, deadline: Deadline) -> Verdict:
        certificate = self._certificates.get(evidence.stratum)
        now_s = self._clock()
        policy = Policy(
            asked=terms.escalation,
            cloud_ms=self._clouds.expected_ms(now_s),
            cloud=self._clouds.admitted(terms) and self._clouds.reachable(now_s) and self._has_room(),
        )
        return decide(evidence.confidence, certificate, self._before(deadline).left_ms(now_s), policy)

    def _has_room(self) -> bool:
        """A cloud that stalls must not fill the memory with requests that wait for it."""
        return self._escalations < self._max_escalations

    def _before(self, deadline: Deadline) -> Deadline:
        """A little earlier than `deadline`, so that a late cloud leaves time to return the edge answer."""
        left_ms = deadline.left_ms(self._clock())
        return Deadline(deadline.expires_at_s - min(_RESERVE_MOST_MS, _RESERVE_SHARE * left_ms) / 1000.0)

    def _has_pair(self, evidence: Evidence) -> bool:
        """Whether a request that was drawn can be audited.

        It is drawn before the verdict and apart from it, so that audits say something of all requests. Of all that an
        edge has answered, that is. What asks a router for `always` goes to the cloud first: there is no pair, and
        nothing is kept that could be wrong. Under a claim that shuts the cloud out no pair can be had either: what is
        kept there stands under a certificate that was found on the other requests.
        """
        whole = evidence.confidence is not None and evidence.stratum and evidence.answer
        if not whole:
            self._telemetry.audit("unpaired")
        return bool(whole)

    def _audit_later(self, request: Request, terms: Terms, half: _Half) -> None:
        if not self.may_ask_cloud(terms):
            if terms.residency:
                self._telemetry.audit("outside-residency")
            return
        if len(self._audits) >= self._max_audits:
            self._telemetry.audit("dropped")
            return
        task = asyncio.create_task(self._audit(request, terms, half))
        self._audits.add(task)
        task.add_done_callback(self._audits.discard)

    async def _audit(self, request: Request, terms: Terms, half: _Half) -> None:
        deadline = Deadline.after(AUDIT_DEADLINE_MS, now_s=self._clock())
        try:
            cloud = await self._clouds.ask(request, terms, deadline, "audit")
        except (UpstreamUnreachable, FoothillError) as error:
            log.debug("audit failed: %s", error)
            self._telemetry.audit("failed")
            return
        if cloud.status != 200:
            self._telemetry.audit("failed")
            return
        self._publish_pair(half, cloud, kept=True)

    def _publish_pair(self, half: _Half, cloud: Answer, *, kept: bool) -> None:
        evidence, cloud_answer = half.evidence, half.essence(cloud)
        if evidence.confidence is None or not cloud_answer:
            self._telemetry.audit("unpaired")
            return
        self._publish_audit(
            Audit(
                stratum=evidence.stratum,
                model=half.model,
                digest=evidence.digest,
                node=half.edge.headers.get(headers.NODE, self._node),
                request_id=cloud.headers.get(headers.REQUEST_ID, ""),
                confidence=evidence.confidence,
                kept=kept,
                edge_answer=evidence.answer,
                cloud_answer=cloud_answer,
                at_s=self._wall(),
            )
        )
        self._telemetry.audit("published")


def evidence_of(edge: Answer) -> Evidence:
    """What an edge answer says of itself."""
    stratum = edge.headers.get(headers.STRATUM, "")
    return Evidence(
        confidence=_confidence(edge.headers.get(headers.CONFIDENCE)),
        stratum=stratum if STRATUM.fullmatch(stratum) else "",
        digest=edge.headers.get(headers.DIGEST, ""),
        answer=edge.headers.get(headers.ANSWER, ""),
    )


def _confidence(value: str | None) -> float | None:
    try:
        confidence = float(value or "")
    except ValueError:
        return None
    return confidence if math.isfinite(confidence) else None


def _edge_phases(edge: Answer) -> dict[str, float]:
    """The edge's own phases, and the network where the answer crossed one: a node's own answers have no hop time."""
    phases = parse_server_timing(edge.headers.get(headers.SERVER_TIMING))
    if edge.hop_ms > 0:
        return across_hop(edge.hop_ms, phases)
    phases.pop("total", None)
    return phases


def _settled(
    request: Request,
    answer: Answer,
    tier: Literal["edge", "cloud"],
    verdict: Verdict,
    phases: dict[str, float],
    *,
    reason: str = "",
    region: str = "",
) -> Settled:
    final = reason or verdict.reason
    if request.path.startswith("/v1/predict/") and answer.status == 200:
        body = with_reason(answer.body, answer.headers.get("Content-Type", ""), final)
        answer = msgspec.structs.replace(answer, body=body)
    return Settled(answer, tier, final, verdict.certified, verdict.degraded, phases, region=region)
