"""The holder: at most one escalation, never a worse answer, and every audit accounted for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.messages import Audit, Certificate
from runtime.links.access.hop import verify_hop
from runtime.links.escalation.holder import Certificates, Evidence, Holder, outward_headers
from runtime.links.http.upstream import Answer, Request, Upstreams, answer_headers
from runtime.links.process.telemetry import Telemetry

ServeHandler = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = b"k" * 32
STRATUM = "s" * 32
ASK = Request("POST", "/v1/predict/digits", {"content-type": "image/png", "Cookie": "no"}, b"png")
TERMS = Terms(request_id="r1")


def certificate(threshold: float = 0.8, sequence: int = 1, state: str = "live") -> Certificate:
    return msgspec.convert(
        {
            "stratum": STRATUM,
            "model": "digits",
            "threshold": threshold,
            "epsilon": 0.02,
            "delta": 0.05,
            "n": 1000,
            "state": state,
            "sequence": sequence,
            "issued_at_s": 0.0,
        },
        Certificate,
    )


def edge(confidence: float | None = 0.5, *, answer: str = "3") -> Answer:
    given = {
        "Content-Type": "application/json",
        headers.NODE: "edge-fra",
        headers.TIER: "edge",
        headers.DIGEST: "sha256:" + "a" * 64,
        headers.STRATUM: STRATUM,
        headers.ANSWER: answer,
        headers.LOAD: "in_flight=0;queue_ms=0;service_ms=1",
        headers.SERVER_TIMING: "queue;dur=1.0, infer;dur=2.0, total;dur=4.0",
    }
    if confidence is not None:
        given[headers.CONFIDENCE] = repr(confidence)
    body = msgspec.json.encode({"task": "classification", "label": "3", "reason": "reported", "tier": "edge"})
    return Answer(200, answer_headers(given), body, hop_ms=10.0)


def within(milliseconds: float) -> Deadline:
    return Deadline.after(milliseconds, now_s=time.monotonic())


class Cloud:
    """A cloud tier that answers "7" and remembers what it was sent."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.status = 200
        self.hold: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        told = {headers.ANSWER: "7", headers.NODE: "cloud", headers.REQUEST_ID: request.headers[headers.REQUEST_ID]}
        body = {"task": "classification", "label": "7", "reason": "cloud", "tier": "cloud"}
        return web.json_response(body, status=self.status, headers=told)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams()
    yield made
    await made.close()


class Held:
    """A holder with what it published and counted."""

    def __init__(
        self,
        upstreams: Upstreams,
        urls: list[str],
        *,
        audit_rate: float = 0.0,
        cloud_region: str = "",
        rng: random.Random | None = None,
        max_audits_in_flight: int = 64,
        max_escalations_in_flight: int = 256,
    ) -> None:
        self.audits: list[Audit] = []
        self.published = asyncio.Event()
        self.telemetry = Telemetry()
        self.certificates = Certificates([certificate()])
        self.holder = Holder(
            node="router",
            cloud_urls=urls,
            upstreams=upstreams,
            certificates=self.certificates,
            hop_key=KEY,
            hop_name="router",
            publish_audit=self._publish,
            telemetry=self.telemetry,
            rng=rng or random.Random(1),
            audit_rate=audit_rate,
            cloud_region=cloud_region,
            max_audits_in_flight=max_audits_in_flight,
            max_escalations_in_flight=max_escalations_in_flight,
        )

    def _publish(self, audit: Audit) -> None:
        self.audits.append(audit)
        self.published.set()

    def counted(self, outcome: str) -> float:
        return self.telemetry.registry.get_sample_value("foothill_audits_total", {"outcome": outcome}) or 0.0

    def cloud_bytes(self, direction: str, purpose: str) -> float:
        labels = {"direction": direction, "purpose": purpose}
        return self.telemetry.registry.get_sample_value("foothill_cloud_bytes_total", labels) or 0.0


@pytest.fixture
async def held(upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud) -> AsyncIterator[Held]:
    made = Held(upstreams, [await serve_handler(cloud.answer)])
    yield made
    await made.holder.close()


async def test_a_sure_answer_is_kept_and_asks_nobody(held: Held, cloud: Cloud) -> None:
    settled = await held.holder.settle(ASK, edge(0.9), TERMS, within(5000), model="digits")
    assert (settled.tier, settled.reason, settled.certified, settled.degraded) == ("edge", "confident", True, False)
    assert settled.phases == {"queue": 1.0, "infer": 2.0, "network": 6.0}
    assert msgspec.json.decode(settled.answer.body)["reason"] == "confident"
    assert cloud.seen == []


async def test_a_doubtful_answer_is_escalated_once_under_the_holders_mark(held: Held, cloud: Cloud) -> None:
    settled = await held.holder.settle(ASK, edge(0.5), TERMS, within(5000), model="digits")
    assert (settled.tier, settled.reason, settled.certified, settled.degraded) == ("cloud", "doubtful", True, False)
    assert msgspec.json.decode(settled.answer.body) == {
        "task": "classification",
        "label": "7",
        "reason": "doubtful",
        "tier": "cloud",
    }
    assert settled.phases["escalate"] > 0
    (seen,) = cloud.seen
    assert verify_hop(KEY, seen.headers[headers.HOP], "r1", time.time()) == "router"
    assert seen.headers["Content-Type"] == "image/png"
    assert "Cookie" not in seen.headers


async def test_what_goes_out_hides_what_is_between_hops(held: Held) -> None:
    settled = await held.holder.settle(ASK, edge(0.9), TERMS, within(5000), model="digits")
    out = outward_headers(settled)
    assert not {name.lower() for name in out} & headers.HOP_ONLY
    assert out[headers.TIER] == "edge"
    assert out[headers.CERTIFIED] == "true"
    assert out[headers.DEGRADED] == "false"
    assert headers.SERVER_TIMING not in out


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_cloud_that_fails_leaves_the_edge_answer_degraded(held: Held, cloud: Cloud, status: int) -> None:
    cloud.status = status
    settled = await held.holder.settle(ASK, edge(0.5), TERMS, within(5000), model="digits")
    assert (settled.tier, settled.reason, settled.certified, settled.degraded) == ("edge", "cloud-failed", False, True)
    assert msgspec.json.decode(settled.answer.body)["label"] == "3"


async def test_a_cloud_that_is_gone_leaves_the_edge_answer_degraded(upstreams: Upstreams, closed_url: str) -> None:
    held = Held(upstreams, [closed_url])
    settled = await held.holder.settle(ASK, edge(0.5), TERMS, within(5000), model="digits")
    assert (settled.tier, settled.reason, settled.degraded) == ("edge", "cloud-failed", True)


async def test_a_late_cloud_leaves_the_edge_answer_before_the_deadline(held: Held, cloud: Cloud) -> None:
    cloud.hold = asyncio.Event()
    deadline = within(1000)
    settled = await held.holder.settle(ASK, edge(0.5), TERMS, deadline, model="digits")
    assert deadline.left_ms(time.monotonic()) > 0
    assert (settled.tier, settled.reason, settled.degraded) == ("edge", "cloud-failed", True)
    again = await held.holder.settle(ASK, edge(0.5), TERMS, within(100), model="digits")
    assert (again.reason, again.degraded) == ("no-time", True)
    assert len(cloud.seen) == 1
    cloud.hold.set()


async def test_of_those_judged_together_no_more_are_escalated_than_there_is_room_for(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    held = Held(upstreams, [await serve_handler(cloud.answer)], max_escalations_in_flight=2)
    evidence, deadline = Evidence(0.5, STRATUM, "", "3"), within(5000)
    judged = [held.holder.judge(evidence, TERMS, deadline) for _ in range(5)]
    settled = await asyncio.gather(
        *(held.holder.settle(ASK, edge(0.5), TERMS, deadline, model="digits", judged=each) for each in judged)
    )
    told = sorted((each.tier, each.reason, each.degraded, each.open) for each in settled)
    # Who finds no room may still have the cloud's answer later, as whoever is judged when there is none.
    assert told == [*[("cloud", "doubtful", False, False)] * 2, *[("edge", "no-cloud", True, True)] * 3]
    assert len(cloud.seen) == 2


async def test_a_cloud_that_keeps_failing_is_left_alone_for_a_while(upstreams: Upstreams, closed_url: str) -> None:
    held = Held(upstreams, [closed_url])
    reasons = [(await held.holder.settle(ASK, edge(0.5), TERMS, within(5000), model="digits")).reason for _ in range(6)]
    assert reasons == ["cloud-failed"] * 5 + ["no-cloud"]


async def test_a_revocation_escalates_everything_and_no_certificate_does_too(held: Held, cloud: Cloud) -> None:
    held.certificates.put(certificate(sequence=2, state="revoked"))
    assert (await held.holder.settle(ASK, edge(1.0), TERMS, within(5000), model="digits")).reason == "revoked"
    stranger = edge(1.0)
    unknown = answer_headers({**stranger.headers, headers.STRATUM: "unknown"})
    settled = await held.holder.settle(
        ASK, msgspec.structs.replace(stranger, headers=unknown), TERMS, within(5000), model="digits"
    )
    assert (settled.reason, settled.certified, settled.tier) == ("uncertified", False, "cloud")


async def test_without_confidence_the_answer_is_accepted_uncertified(held: Held, cloud: Cloud) -> None:
    settled = await held.holder.settle(ASK, edge(None), TERMS, within(5000), model="digits")
    assert (settled.tier, settled.reason, settled.certified) == ("edge", "no-confidence", False)
    assert cloud.seen == []


async def test_a_residency_claim_without_the_clouds_region_forbids_cloud_and_audit(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    claim = Terms(request_id="r1", residency=("eu-central",))
    url = await serve_handler(cloud.answer)
    for region in ("", "us-east"):
        held = Held(upstreams, [url], cloud_region=region, audit_rate=1.0)
        kept = await held.holder.settle(ASK, edge(0.9), claim, within(5000), model="digits")
        doubtful = await held.holder.settle(ASK, edge(0.5), claim, within(5000), model="digits")
        assert (kept.reason, doubtful.reason, doubtful.degraded) == ("confident", "no-cloud", True)
        with pytest.raises(FoothillError, match="lies outside") as raised:
            await held.holder.ask_cloud(ASK, claim, within(5000), reason="no-edge")
        assert raised.value.code == "residency_denied"
        await held.holder.close()
    assert cloud.seen == []
    assert held.counted("outside-residency") == 2
    inside = Held(upstreams, [url], cloud_region="eu-central")
    assert (await inside.holder.settle(ASK, edge(0.5), claim, within(5000), model="digits")).tier == "cloud"


async def test_an_escalated_audit_is_published_from_the_pair_at_hand(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    held = Held(upstreams, [await serve_handler(cloud.answer)], audit_rate=1.0)
    await held.holder.settle(ASK, edge(0.5), TERMS, within(5000), model="digits")
    (audit,) = held.audits
    assert (audit.kept, audit.edge_answer, audit.cloud_answer, audit.agree) == (False, "3", "7", False)
    assert (audit.node, audit.stratum, audit.request_id, audit.confidence) == ("edge-fra", STRATUM, "r1", 0.5)
    assert len(cloud.seen) == 1
    assert held.cloud_bytes("sent", "escalate") > 100
    assert held.cloud_bytes("received", "escalate") > 100


async def test_a_kept_audit_asks_the_cloud_off_the_path(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    cloud.hold = asyncio.Event()
    held = Held(upstreams, [await serve_handler(cloud.answer)], audit_rate=1.0)
    settled = await held.holder.settle(ASK, edge(0.9), TERMS, within(5000), model="digits")
    assert (settled.tier, held.audits) == ("edge", [])
    cloud.hold.set()
    await asyncio.wait_for(held.published.wait(), 5)
    (audit,) = held.audits
    assert (audit.kept, audit.edge_answer, audit.cloud_answer) == (True, "3", "7")
    assert held.cloud_bytes("sent", "audit") > 100


async def test_audits_are_bounded_and_those_too_many_counted(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    cloud.hold = asyncio.Event()
    held = Held(upstreams, [await serve_handler(cloud.answer)], audit_rate=1.0, max_audits_in_flight=2)
    for _ in range(5):
        await held.holder.settle(ASK, edge(0.9), TERMS, within(5000), model="digits")
    assert held.counted("dropped") == 3
    await held.holder.close()
    assert held.audits == []


async def test_exactly_the_drawn_requests_are_audited(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    rate, number = 0.3, 60
    draws = random.Random(7)
    drawn = [f"r{i}" for i in range(number) if draws.random() < rate]
    held = Held(upstreams, [await serve_handler(cloud.answer)], audit_rate=rate, rng=random.Random(7))
    for i in range(number):
        sure = 0.9 if i % 2 else 0.5
        await held.holder.settle(ASK, edge(sure), Terms(request_id=f"r{i}"), within(5000), model="digits")
    while held.counted("published") < len(drawn):
        held.published.clear()
        await asyncio.wait_for(held.published.wait(), 5)
    assert sorted(audit.request_id for audit in held.audits) == sorted(drawn)
    assert all(audit.kept == bool(int(audit.request_id[1:]) % 2) for audit in held.audits)
    kept = sum(audit.kept for audit in held.audits)
    assert len(cloud.seen) == number // 2 + kept


async def test_who_asked_never_is_never_escalated_nor_audited(
    upstreams: Upstreams, serve_handler: ServeHandler, cloud: Cloud
) -> None:
    held = Held(upstreams, [await serve_handler(cloud.answer)], audit_rate=1.0)
    terms = Terms(request_id="r1", escalation="never")
    settled = await held.holder.settle(ASK, edge(0.1), terms, within(5000), model="digits")
    await held.holder.close()
    assert (settled.reason, cloud.seen, held.audits) == ("asked-never", [], [])


async def test_the_fallback_relays_a_refusal_and_raises_what_has_no_answer(
    upstreams: Upstreams, held: Held, cloud: Cloud, closed_url: str
) -> None:
    settled = await held.holder.ask_cloud(ASK, TERMS, within(5000), reason="no-edge")
    assert (settled.tier, settled.reason, settled.answer.status) == ("cloud", "no-edge", 200)
    cloud.status = 400
    refused = await held.holder.ask_cloud(ASK, TERMS, within(5000), reason="no-edge")
    assert refused.answer.status == 400
    gone = Held(upstreams, [closed_url])
    for _ in range(7):
        with pytest.raises(FoothillError) as raised:
            await gone.holder.ask_cloud(ASK, TERMS, within(5000), reason="no-edge")
        assert raised.value.code == "upstream_failed"
    with pytest.raises(FoothillError, match="cloud_urls"):
        await Held(upstreams, []).holder.ask_cloud(ASK, TERMS, within(5000), reason="no-edge")


async def test_an_answer_that_its_server_settled_is_left_alone(held: Held) -> None:
    marked = edge(0.5)
    assert held.holder.settled_by(marked) is None
    own = answer_headers(
        {headers.TIER: "cloud", headers.REASON: "doubtful", headers.CERTIFIED: "true", headers.DEGRADED: "false"}
    )
    settled = held.holder.settled_by(Answer(200, own, b"", 1.0))
    assert settled is not None
    assert (settled.tier, settled.reason, settled.certified, settled.degraded) == ("cloud", "doubtful", True, False)
    both = answer_headers({headers.CERTIFIED: "true", headers.DEGRADED: "true"})
    claimed = held.holder.settled_by(Answer(200, both, b"", 1.0))
    assert claimed is not None
    assert (claimed.certified, claimed.degraded) == (False, True)


@given(st.permutations(range(6)))
def test_the_highest_certificate_wins_in_any_order(sequences: list[int]) -> None:
    known = Certificates(certificate(threshold=number / 10, sequence=number) for number in sequences)
    found = known.get(STRATUM)
    assert found is not None
    assert found.sequence == 5
