"""The load against scripted servers."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import Counter
from collections.abc import Callable

import pytest
from aiohttp import web

from contracts import headers
from contracts.oip import HEADER_LENGTH, BinarySize, InferResponse, OutputTensor, frame
from contracts.places import Place
from foothill.demo.places import ClientPlace
from foothill.demo.traffic import Crowd, Front, Outcome, Sample, make_calls
from tests.foothill.scripted import Handler, Scripted, leases, predicts, refuses

Serve = Callable[[Handler], Scripted]
LABELS = tuple("0123456789")
SAMPLES = [Sample(b"\xff\xd8\xff jpeg", b"\x89PNG png", bytes(16), (1, 1, 2, 2), "7")]
PLACES = [ClientPlace(f"203.0.113.{at}", "IE", "", Place(53.0, -6.0), "northeurope") for at in range(20)]


def answers(tier: str, node: str, label: int) -> Handler:
    async def handler(request: web.Request, body: bytes) -> web.StreamResponse:
        if not request.path.endswith("/infer"):
            return await predicts(tier, node)(request, body)
        scores = [float(at == label) for at in range(10)]
        head = InferResponse("digits", "1", (OutputTensor("logits", "FP32", (1, 10), BinarySize(40)),))
        encoded, length = frame(head, [struct.pack("<10f", *scores)])
        sent = {HEADER_LENGTH: str(length), headers.TIER: tier, headers.NODE: node, headers.REASON: "confident"}
        return web.Response(body=encoded, headers=sent)

    return handler


def routes(node: Scripted, proxied: Handler) -> Handler:
    async def handler(request: web.Request, body: bytes) -> web.StreamResponse:
        if request.path == "/v1/route":
            return await leases(node.url)(request, body)
        return await proxied(request, body)

    return handler


def test_calls_are_the_same_for_the_same_seed_and_mixed_as_promised() -> None:
    calls = make_calls(SAMPLES, 100, 2000, seed=3)
    assert calls == make_calls(SAMPLES, 100, 2000, seed=3)
    assert calls != make_calls(SAMPLES, 100, 2000, seed=4)
    assert [call.at for call in calls] == list(range(2000))
    by_client = {call.client: call.leased for call in calls}
    assert Counter(by_client.values()) == {True: 90, False: 10}
    assert all(by_client[call.client] == call.leased for call in calls)
    kinds = Counter(call.kind for call in calls)
    assert set(kinds) == {"jpeg", "png", "tensor"}
    assert min(kinds.values()) > 300


async def test_leased_clients_talk_to_the_node_and_the_others_to_the_router(serve: Serve) -> None:
    node = serve(answers("edge", "fra", 7))
    router = serve(routes(node, answers("edge", "fra", 7)))
    cloud = serve(answers("cloud", "cloud", 7))
    calls = make_calls(SAMPLES, len(PLACES), 200, seed=1)
    heard: list[Outcome] = []
    async with Crowd(Front(router.url, cloud.url, LABELS), PLACES) as crowd:
        outcomes = await crowd.run(calls, "hybrid", concurrency=8, on_outcome=heard.append)
    assert heard == outcomes
    assert sorted(outcome.at for outcome in outcomes) == list(range(200))
    assert all(outcome.ok and outcome.label == "7" and outcome.tier == "edge" for outcome in outcomes)
    leased = [call for call in calls if call.leased]
    asked = [path for path, _, _ in router.seen].count("/v1/route")
    assert asked == len({call.client for call in leased})
    assert len(node.seen) == len(leased)
    assert len(router.seen) == asked + len(calls) - len(leased)
    assert cloud.seen == []
    addresses = {sent["X-Forwarded-For"] for _, sent, _ in router.seen}
    assert addresses == {PLACES[call.client].address for call in calls}
    jpeg = next(outcome for outcome in outcomes if outcome.kind == "jpeg")
    assert jpeg.sent_bytes == len(SAMPLES[0].jpeg)
    assert jpeg.received_bytes > 0
    assert "network" in jpeg.phases_ms


async def test_the_other_ways_say_never_or_go_straight_to_the_cloud(serve: Serve) -> None:
    node = serve(answers("edge", "fra", 7))
    router = serve(routes(node, answers("edge", "fra", 7)))
    cloud = serve(answers("cloud", "cloud", 3))
    calls = make_calls(SAMPLES, len(PLACES), 40, seed=1)
    async with Crowd(Front(router.url, cloud.url, LABELS), PLACES) as crowd:
        await crowd.run(calls, "edge", concurrency=4)
        served = [sent for path, sent, _ in (*node.seen, *router.seen) if path != "/v1/route"]
        assert {sent[headers.ESCALATION] for sent in served} == {"never"}
        before = len(node.seen) + len(router.seen)
        outcomes = await crowd.run(calls, "cloud", concurrency=4)
    assert len(cloud.seen) == 40
    assert len(node.seen) + len(router.seen) == before
    assert {outcome.label for outcome in outcomes if outcome.kind == "tensor"} == {"3"}


async def test_each_region_has_a_way_of_its_own(serve: Serve) -> None:
    cloud, elsewhere = serve(answers("cloud", "near", 7)), serve(answers("cloud", "far", 7))
    places = [PLACES[0], ClientPlace("203.0.113.99", "JP", "", Place(35.0, 139.0), "japaneast")]
    front = Front(cloud.url, cloud.url, LABELS, connect_to={"japaneast": {cloud.url: elsewhere.url}})
    async with Crowd(front, places) as crowd:
        outcomes = await crowd.run(make_calls(SAMPLES, 2, 40, seed=1), "cloud", concurrency=2)
    assert {(outcome.region, outcome.node) for outcome in outcomes} == {("northeurope", "near"), ("japaneast", "far")}


async def test_a_failed_call_is_an_outcome_not_an_end(serve: Serve) -> None:
    cloud = serve(refuses("internal", "Broken."))
    async with Crowd(Front(cloud.url, cloud.url, LABELS), PLACES) as crowd:
        outcomes = await crowd.run(make_calls(SAMPLES, len(PLACES), 5, seed=1), "cloud", concurrency=2)
    assert [outcome.status for outcome in outcomes] == [500] * 5
    assert all("Broken." in outcome.error and not outcome.ok for outcome in outcomes)


async def test_traffic_goes_on_until_told_to_stop(serve: Serve) -> None:
    cloud = serve(answers("cloud", "cloud", 7))
    stop = asyncio.Event()

    def stop_after_fifty(outcome: Outcome) -> None:
        counted.append(outcome)
        if len(counted) == 50:
            stop.set()

    counted: list[Outcome] = []
    calls = itertools.cycle(make_calls(SAMPLES, len(PLACES), 10, seed=1))
    async with Crowd(Front(cloud.url, cloud.url, LABELS), PLACES) as crowd:
        outcomes = await crowd.run(calls, "cloud", concurrency=4, on_outcome=stop_after_fifty, until=stop)
    assert 50 <= len(outcomes) <= 53


async def test_a_pace_is_kept(serve: Serve) -> None:
    cloud = serve(answers("cloud", "cloud", 7))
    calls = make_calls(SAMPLES, len(PLACES), 31, seed=1)
    loop = asyncio.get_running_loop()
    async with Crowd(Front(cloud.url, cloud.url, LABELS), PLACES) as crowd:
        began_s = loop.time()
        await crowd.run(calls, "cloud", concurrency=16, per_second=50.0)
        assert loop.time() - began_s >= 30 / 50.0


def test_the_demo_s_pictures_come_in_all_forms() -> None:
    pytest.importorskip("sklearn")
    from foothill.demo.samples import digit_samples

    samples = digit_samples(12, 1)
    assert len(samples) == 12
    for sample in samples:
        assert sample.jpeg.startswith(b"\xff\xd8\xff")
        assert sample.png.startswith(b"\x89PNG")
        assert sample.shape == (1, 1, 32, 32)
        assert len(sample.tensor) == 4 * 32 * 32
        assert sample.label in LABELS
    assert len({sample.tensor for sample in samples}) == 12
    assert digit_samples(12, 1) == samples
