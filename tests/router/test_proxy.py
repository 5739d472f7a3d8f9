"""The story of a proxied request, and its table of failures: over real sockets, with nothing left in flight."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.tries import judge
from runtime.links.access.hop import verify_hop
from tests.router.rig import ASHBURN, HOP_KEY, TOKYO, BuildRig, Start, call, static


async def test_the_nearest_node_answers_and_every_phase_is_told(start: Start, rig: BuildRig) -> None:
    near, far = await start("edge-fra"), await start("edge-nrt")
    made = rig([static("edge-fra", near.url), static("edge-nrt", far.url, TOKYO)], [])
    settled = await made.proxy.answer(call())
    assert (settled.tier, settled.reason, settled.certified) == ("edge", "confident", True)
    assert settled.answer.headers[headers.NODE] == "edge-fra"
    assert list(settled.phases) == ["route", "queue", "infer", "network"]
    assert msgspec.json.decode(settled.answer.body)["reason"] == "confident"
    assert (len(near.seen), len(far.seen)) == (1, 0)


async def test_a_doubtful_answer_goes_to_the_cloud_once(start: Start, rig: BuildRig) -> None:
    edge, cloud = await start("edge-fra"), await start("cloud", tier="cloud", answer="7")
    edge.confidence = 0.3
    made = rig([static("edge-fra", edge.url)], [cloud.url])
    settled = await made.proxy.answer(call())
    assert (settled.tier, settled.reason) == ("cloud", "doubtful")
    assert (len(edge.seen), len(cloud.seen)) == (1, 1)
    assert cloud.bodies == [b"png"]
    mark = cloud.seen[0].headers[headers.HOP]
    assert verify_hop(HOP_KEY, mark, "r1", time.time()) == "router"


async def test_an_audit_of_a_kept_answer_names_the_node(start: Start, rig: BuildRig) -> None:
    edge, cloud = await start("edge-fra"), await start("cloud", tier="cloud", answer="3")
    made = rig([static("edge-fra", edge.url)], [cloud.url], audit_rate=1.0)
    settled = await made.proxy.answer(call())
    assert settled.tier == "edge"
    await asyncio.wait_for(made.audited.wait(), 5)
    assert (made.audits[0].node, made.audits[0].kept, made.audits[0].agree) == ("edge-fra", True, True)


async def test_a_node_that_settles_by_itself_is_not_settled_again(
    start: Start, rig: BuildRig, caplog: pytest.LogCaptureFixture
) -> None:
    edge, cloud = await start("edge-fra"), await start("cloud", tier="cloud")
    edge.marked, edge.confidence = False, 0.1
    made = rig([static("edge-fra", edge.url)], [cloud.url])
    for _ in range(2):
        settled = await made.proxy.answer(call())
        assert (settled.tier, settled.reason) == ("edge", "confident")
    assert cloud.seen == []
    assert caplog.text.count("does not take this router's mark") == 1


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503, 504])
async def test_a_node_that_fails_is_followed_by_another(start: Start, rig: BuildRig, status: int) -> None:
    bad, good = await start("edge-fra"), await start("edge-nrt")
    bad.status = status
    made = rig([static("edge-fra", bad.url), static("edge-nrt", good.url, TOKYO)], [])
    settled = await made.proxy.answer(call())
    assert settled.answer.headers[headers.NODE] == "edge-nrt"
    assert settled.phases["retry"] > 0


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_refusal_is_relayed_and_not_retried(start: Start, rig: BuildRig, status: int) -> None:
    bad, other = await start("edge-fra"), await start("edge-nrt")
    bad.status = status
    made = rig([static("edge-fra", bad.url), static("edge-nrt", other.url, TOKYO)], [])
    settled = await made.proxy.answer(call())
    assert settled.answer.status == status
    assert b"edge-fra says no" in settled.answer.body
    assert other.seen == []


async def test_a_dead_node_costs_nobody_an_answer(start: Start, rig: BuildRig, unused_tcp_port: int) -> None:
    good = await start("edge-nrt")
    made = rig([static("edge-fra", f"http://127.0.0.1:{unused_tcp_port}"), static("edge-nrt", good.url, TOKYO)], [])
    for _ in range(20):
        settled = await made.proxy.answer(call())
        assert settled.answer.headers[headers.NODE] == "edge-nrt"


async def test_a_node_that_keeps_failing_is_left_alone(start: Start, rig: BuildRig) -> None:
    bad, good = await start("edge-fra"), await start("edge-nrt")
    bad.status = 500
    made = rig([static("edge-fra", bad.url), static("edge-nrt", good.url, TOKYO)], [])
    for _ in range(5):
        made.nodes.all()[0].reserve(time.monotonic())
        made.nodes.all()[0].release("failed", time.monotonic())
    for _ in range(10):
        await made.proxy.answer(call())
    assert bad.seen == []


async def test_a_stalled_node_leaves_time_for_another(start: Start, rig: BuildRig) -> None:
    stalled, good = await start("edge-fra"), await start("edge-nrt")
    stalled.hold = asyncio.Event()
    made = rig([static("edge-fra", stalled.url), static("edge-nrt", good.url, TOKYO)], [])
    settled = await made.proxy.answer(call(within_ms=1500))
    assert settled.answer.headers[headers.NODE] == "edge-nrt"
    await asyncio.wait_for(stalled.cancelled.wait(), 5)


async def test_stalled_nodes_far_away_leave_time_for_the_cloud(start: Start, rig: BuildRig) -> None:
    stalled = [await start(f"edge-{number}") for number in range(3)]
    for one in stalled:
        one.hold = asyncio.Event()
    nodes = [static(f"edge-{number}", one.url, TOKYO) for number, one in enumerate(stalled)]
    cloud = await start("cloud", tier="cloud", answer="7")
    settled = await rig(nodes, [cloud.url]).proxy.answer(call(within_ms=2000))
    assert (settled.tier, settled.reason, settled.answer.status) == ("cloud", "no-edge", 200)


async def test_without_a_node_the_cloud_answers(start: Start, rig: BuildRig) -> None:
    cloud, bad = await start("cloud", tier="cloud", answer="7"), await start("edge-fra")
    for nodes in ([], [static("edge-fra", bad.url)], [static("edge-fra", bad.url, model="other")]):
        bad.status = 503
        settled = await rig(nodes, [cloud.url]).proxy.answer(call())
        assert (settled.tier, settled.reason, settled.answer.status) == ("cloud", "no-edge", 200)
        assert msgspec.json.decode(settled.answer.body)["reason"] == "no-edge"


async def test_when_all_fail_the_first_failure_is_told(start: Start, rig: BuildRig, unused_tcp_port: int) -> None:
    bad, cloud = await start("edge-fra"), await start("cloud", tier="cloud")
    bad.status = cloud.status = 503
    told = await rig([static("edge-fra", bad.url)], [cloud.url]).proxy.answer(call())
    assert (told.answer.status, b"edge-fra says no" in told.answer.body) == (503, True)
    nowhere = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(FoothillError) as raised:
        await rig([static("edge-fra", nowhere)], [nowhere]).proxy.answer(call())
    assert (raised.value.code, raised.value.retryable) == ("upstream_failed", True)
    with pytest.raises(FoothillError, match="cloud_urls"):
        await rig([], []).proxy.answer(call())


async def test_a_model_that_nobody_knows_is_a_404_of_the_cloud(start: Start, rig: BuildRig) -> None:
    edge, cloud = await start("edge-fra"), await start("cloud", tier="cloud")
    edge.status = cloud.status = 404
    told = await rig([static("edge-fra", edge.url)], [cloud.url]).proxy.answer(call())
    assert (told.answer.status, b"cloud says no" in told.answer.body) == (404, True)


async def test_open_circuits_are_asked_when_nothing_else_is_left(start: Start, rig: BuildRig) -> None:
    edge = await start("edge-fra")
    made = rig([static("edge-fra", edge.url)], [])
    node = made.nodes.all()[0]
    for _ in range(5):
        node.reserve(time.monotonic())
        node.release("failed", time.monotonic())
    assert not node.circuit.allows(time.monotonic())
    settled = await made.proxy.answer(call())
    assert settled.answer.status == 200
    assert node.circuit.allows(time.monotonic())


async def test_a_spent_budget_ends_the_retries(start: Start, rig: BuildRig) -> None:
    bad, cloud = await start("edge-fra"), await start("cloud", tier="cloud")
    bad.status = 500
    made = rig([static("edge-fra", bad.url)], [cloud.url], floor_per_s=0.2)
    statuses = [(await made.proxy.answer(call())).answer.status for _ in range(4)]
    assert statuses == [200, 200, 500, 500]
    counted = made.telemetry.registry.get_sample_value
    assert counted("foothill_router_retries_total", {"outcome": "tried"}) == 2
    assert counted("foothill_router_retries_total", {"outcome": "no-budget"}) == 2


async def test_a_budget_that_refuses_is_asked_once_for_a_failure(start: Start, rig: BuildRig) -> None:
    bad, other, cloud = await start("edge-fra"), await start("edge-nrt"), await start("cloud", tier="cloud")
    bad.status = other.status = 500
    made = rig([static("edge-fra", bad.url), static("edge-nrt", other.url)], [cloud.url], floor_per_s=0.01)
    assert (await made.proxy.answer(call())).answer.status == 500
    counted = made.telemetry.registry.get_sample_value
    assert counted("foothill_router_retries_total", {"outcome": "no-budget"}) == 1
    assert len(bad.seen) + len(other.seen) == 1
    assert cloud.seen == []


async def test_asked_always_skips_the_edge_until_the_cloud_fails(start: Start, rig: BuildRig) -> None:
    edge, cloud = await start("edge-fra"), await start("cloud", tier="cloud", answer="7")
    made = rig([static("edge-fra", edge.url)], [cloud.url])
    always = Terms(escalation="always")
    settled = await made.proxy.answer(call(terms=always))
    assert (settled.tier, settled.reason, settled.certified) == ("cloud", "asked-always", True)
    assert edge.seen == []
    cloud.status = 503
    degraded = await made.proxy.answer(call(terms=always))
    assert (degraded.tier, degraded.reason, degraded.degraded) == ("edge", "cloud-failed", True)
    cloud.status, cloud.hold = 200, asyncio.Event()
    late = await made.proxy.answer(call(terms=always, within_ms=900))
    assert (late.tier, late.reason, late.degraded) == ("edge", "cloud-failed", True)
    cloud.hold.set()


async def test_a_claim_keeps_the_request_inside_to_the_end(start: Start, rig: BuildRig) -> None:
    inside, outside, cloud = await start("edge-fra"), await start("edge-iad"), await start("cloud", tier="cloud")
    nodes = [static("edge-fra", inside.url), static("edge-iad", outside.url, ASHBURN, region="us-east")]
    made = rig(nodes, [cloud.url], cloud_region="eu-west", audit_rate=1.0)
    claim = Terms(residency=("eu-central",))
    inside.confidence = 0.1
    settled = await made.proxy.answer(call(terms=claim))
    assert (settled.reason, settled.degraded) == ("no-cloud", True)
    inside.status = 503
    refused = await made.proxy.answer(call(terms=claim))
    assert refused.answer.status == 503
    with pytest.raises(FoothillError) as raised:
        await made.proxy.answer(call(terms=Terms(residency=("ap-south",))))
    assert raised.value.code == "residency_denied"
    always = await made.proxy.answer(call(terms=Terms(residency=("us-east",), escalation="always")))
    assert (always.tier, always.reason, always.degraded) == ("edge", "no-cloud", True)
    assert cloud.seen == []
    assert len(outside.seen) == 1


async def test_a_caller_that_goes_away_is_cancelled_upstream_and_counted_out(start: Start, rig: BuildRig) -> None:
    edge = await start("edge-fra")
    edge.hold = asyncio.Event()
    made = rig([static("edge-fra", edge.url)], [])
    for _ in range(6):
        edge.arrived.clear()
        edge.cancelled.clear()
        asking = asyncio.create_task(made.proxy.answer(call()))
        await asyncio.wait_for(edge.arrived.wait(), 5)
        assert made.in_flight() == 1
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert made.in_flight() == 0
        await asyncio.wait_for(edge.cancelled.wait(), 5)
    assert made.nodes.all()[0].circuit.state == "closed"


async def test_concurrent_requests_spread_by_what_is_in_flight(start: Start, rig: BuildRig) -> None:
    first, second = await start("edge-a"), await start("edge-b")
    made = rig([static("edge-a", first.url), static("edge-b", second.url)], [])
    await asyncio.gather(*(made.proxy.answer(call()) for _ in range(40)))
    assert min(len(first.seen), len(second.seen)) >= 10


async def test_a_deadline_too_short_for_anybody_blames_nobody(start: Start, rig: BuildRig) -> None:
    edge = await start("edge-fra")
    edge.hold = asyncio.Event()
    made = rig([static("edge-fra", edge.url)], [])
    for _ in range(6):
        with pytest.raises(FoothillError) as raised:
            await made.proxy.answer(call(within_ms=20))
        assert raised.value.code in ("deadline_exceeded", "unavailable")
    assert made.nodes.all()[0].circuit.state == "closed"


@given(st.integers(100, 599))
def test_every_status_has_a_judgement(status: int) -> None:
    judgement = judge(status)
    assert judgement.final == (status // 100 == 2 or (status // 100 == 4 and status not in (404, 429)))
    assert (judgement.ending == "failed") == (status // 100 in (1, 3, 5))


async def test_a_cloud_that_keeps_failing_is_not_asked_before_the_edge(start: Start, rig: BuildRig) -> None:
    """Each edge answer behind a failed cloud is a second try: they would use up the budget."""
    edge, cloud = await start("edge-fra"), await start("cloud", tier="cloud", answer="7")
    cloud.status = 500
    made = rig([static("edge-fra", edge.url)], [cloud.url], floor_per_s=1.0)
    began_s = time.monotonic()
    for _ in range(20):
        settled = await made.proxy.answer(call(terms=Terms(escalation="always")))
        assert (settled.answer.status, settled.tier, settled.degraded) == (200, "edge", True)
    probes, late = int(time.monotonic() - began_s), 1
    assert 5 <= len(cloud.seen) <= 5 + probes + late  # one asks for the late answer, perhaps beside the fifth
