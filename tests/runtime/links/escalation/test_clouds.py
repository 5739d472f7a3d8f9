"""The cloud tier over real sockets: which URL is asked, for how long, and what is learned from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from runtime.links.access.hop import verify_hop
from runtime.links.escalation.clouds import Clouds
from runtime.links.http.upstream import Request, Upstreams, UpstreamUnreachable
from runtime.links.process.telemetry import Telemetry

ServeHandler = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = b"k" * 32
ASK = Request("POST", "/v1/predict/digits", {"Content-Type": "image/png", "Cookie": "no"}, b"png")
TERMS = Terms(request_id="r1")


class Cloud:
    """One URL of the tier; it answers with `status` once `hold` is set, and remembers what it was sent."""

    def __init__(self, status: int = 200, *, held: bool = False) -> None:
        self.status = status
        self.seen: list[web.Request] = []
        self.asked = asyncio.Event()
        self.hold = asyncio.Event()
        if not held:
            self.hold.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.asked.set()
        await self.hold.wait()
        own = {headers.REQUEST_ID: request.headers[headers.REQUEST_ID]}
        return web.Response(status=self.status, text="told", headers=own)


class Tier:
    """Clouds over real upstreams, with what they counted."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self.telemetry = Telemetry()

    def of(self, *urls: str, region: str = "", budget: RetryBudget | None = None) -> Clouds:
        return Clouds(
            urls,
            region=region,
            upstreams=self._upstreams,
            budget=budget or RetryBudget(),
            hop_key=KEY,
            hop_name="node",
            telemetry=self.telemetry,
            clock=time.monotonic,
            wall=time.time,
        )

    def bytes(self, direction: str, purpose: str) -> float:
        labels = {"direction": direction, "purpose": purpose}
        return self.telemetry.registry.get_sample_value("foothill_cloud_bytes_total", labels) or 0.0


@pytest.fixture
async def tier() -> AsyncIterator[Tier]:
    upstreams = Upstreams()
    yield Tier(upstreams)
    await upstreams.close()


def within(milliseconds: float) -> Deadline:
    return Deadline.after(milliseconds, now_s=time.monotonic())


async def test_it_is_sent_under_the_callers_id_and_this_hops_mark_and_counted(
    tier: Tier, serve_handler: ServeHandler
) -> None:
    cloud = Cloud()
    answer = await tier.of(await serve_handler(cloud.answer)).ask(ASK, TERMS, within(5000), "audit")
    assert (answer.status, answer.body) == (200, b"told")
    (seen,) = cloud.seen
    assert verify_hop(KEY, seen.headers[headers.HOP], "r1", time.time()) == "node"
    assert seen.headers["Content-Type"] == "image/png"
    assert "Cookie" not in seen.headers
    assert tier.bytes("sent", "audit") > 100
    assert tier.bytes("received", "audit") > 50


async def test_the_next_one_is_asked_when_one_fails_and_the_last_failure_is_told(
    tier: Tier, serve_handler: ServeHandler, closed_url: str
) -> None:
    busy, broken, sound = Cloud(429), Cloud(503), Cloud()
    urls = [closed_url, await serve_handler(busy.answer), await serve_handler(broken.answer)]
    answer = await tier.of(*urls, await serve_handler(sound.answer)).ask(ASK, TERMS, within(5000), "escalate")
    assert answer.status == 200
    assert [len(cloud.seen) for cloud in (busy, broken, sound)] == [1, 1, 1]
    assert (await tier.of(*urls).ask(ASK, TERMS, within(5000), "escalate")).status == 503
    with pytest.raises(UpstreamUnreachable):
        await tier.of(closed_url).ask(ASK, TERMS, within(5000), "escalate")


async def test_further_urls_are_retries_within_the_budget(tier: Tier, serve_handler: ServeHandler) -> None:
    broken, sound = Cloud(503), Cloud()
    budget = RetryBudget(ratio=0.0, floor_per_s=0.2)
    clouds = tier.of(await serve_handler(broken.answer), await serve_handler(sound.answer), budget=budget)
    statuses = [(await clouds.ask(ASK, TERMS, within(5000), "escalate")).status for _ in range(3)]
    assert statuses == [200, 200, 503]
    assert [len(cloud.seen) for cloud in (broken, sound)] == [3, 2]


async def test_one_that_stalls_leaves_time_for_the_next_and_is_remembered_as_slow(
    tier: Tier, serve_handler: ServeHandler
) -> None:
    stalled, sound = Cloud(held=True), Cloud()
    clouds = tier.of(await serve_handler(stalled.answer), await serve_handler(sound.answer))
    assert clouds.expected_ms(time.monotonic()) == 0.0
    deadline = within(6000)
    answer = await clouds.ask(ASK, TERMS, deadline, "escalate")
    assert (answer.status, len(sound.seen)) == (200, 1)
    assert deadline.left_ms(time.monotonic()) > 0
    assert clouds.expected_ms(time.monotonic()) > 300
    stalled.hold.set()


async def test_one_that_keeps_failing_is_left_alone_but_for_those_with_nowhere_else_to_go(
    tier: Tier, serve_handler: ServeHandler
) -> None:
    broken = Cloud(500)
    clouds = tier.of(await serve_handler(broken.answer))
    for _ in range(5):
        assert clouds.reachable(time.monotonic())
        await clouds.ask(ASK, TERMS, within(5000), "escalate")
    assert not clouds.reachable(time.monotonic())
    with pytest.raises(FoothillError, match="No cloud URL takes requests now"):
        await clouds.ask(ASK, TERMS, within(5000), "escalate")
    assert len(broken.seen) == 5
    assert (await clouds.ask(ASK, TERMS, within(5000), "fallback")).status == 500


async def test_callers_that_go_away_leave_the_circuit_closed(tier: Tier, serve_handler: ServeHandler) -> None:
    cloud = Cloud(held=True)
    clouds = tier.of(await serve_handler(cloud.answer))
    for _ in range(6):
        cloud.asked.clear()
        asking = asyncio.create_task(clouds.ask(ASK, TERMS, within(5000), "escalate"))
        await asyncio.wait_for(cloud.asked.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    cloud.hold.set()
    assert clouds.reachable(time.monotonic())
    assert (await clouds.ask(ASK, TERMS, within(5000), "escalate")).status == 200


async def test_a_pinned_version_of_the_edge_is_not_asked_of_the_cloud(tier: Tier, serve_handler: ServeHandler) -> None:
    cloud = Cloud()
    pinned = Request("POST", "/v2/models/digits/versions/3/infer?a=b", {}, b"{}")
    await tier.of(await serve_handler(cloud.answer)).ask(pinned, TERMS, within(5000), "escalate")
    assert cloud.seen[0].path_qs == "/v2/models/digits/infer?a=b"


@pytest.mark.parametrize(
    ("urls", "region", "claim", "admitted", "code"),
    [
        ((), "", (), False, "unavailable"),
        (("http://a:1",), "", (), True, ""),
        (("http://a:1",), "", ("eu",), False, "residency_denied"),
        (("http://a:1",), "us", ("eu",), False, "residency_denied"),
        (("http://a:1",), "eu", ("eu", "us"), True, ""),
    ],
)
async def test_a_claim_shuts_out_a_cloud_that_is_not_known_to_lie_inside(
    tier: Tier, urls: tuple[str, ...], region: str, claim: tuple[str, ...], admitted: bool, code: str
) -> None:
    clouds, terms = tier.of(*urls, region=region), Terms(residency=claim)
    assert clouds.admitted(terms) is admitted
    if code:
        assert clouds.refusal(terms).code == code
