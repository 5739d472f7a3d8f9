"""Probes over real sockets: who is not well gets nothing, who is well again does, and few are asked at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from contracts import headers
from router.config import StaticNode
from router.fields import Fields
from router.health import FALL
from router.nodes import Nodes
from router.probes import MOST_AT_ONCE, Probes
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Upstreams
from tests.router.rig import DUBLIN, FRANKFURT, TOKYO, Start, static
from tests.router.test_app import Client, Route, router
from tests.runtime.raw_caller import until

__all__ = ["Client", "router"]

READY = "/v2/health/ready"
EVERY_S = 0.05
Probe = Callable[..., Awaitable[Nodes]]


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    """Starts to probe: `await probe(static(…), …)`."""
    upstreams, running = Upstreams(connect_timeout_s=0.5), []

    async def started(*told: StaticNode, timeout_s: float = 0.5) -> Nodes:
        nodes = Nodes(DUBLIN, told)
        running.append(Probes(nodes, told, upstreams, random.Random(1), interval_s=EVERY_S, timeout_s=timeout_s))
        await running[-1].start()
        return nodes

    yield started
    for each in running:
        await each.stop()
    await upstreams.close()


async def told(client: Client, states: dict[str, int]) -> None:
    """Until the router says that its nodes are so."""
    for _ in range(500):
        if (await client.json("GET", "/healthz"))["nodes"] == states:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"The nodes are never {states}.")


async def test_a_node_is_online_once_it_has_answered_and_away_while_it_does_not(probe: Probe, start: Start) -> None:
    edge = await start("edge-fra")
    nodes = await probe(static("edge-fra", edge.url, health_path=READY))
    (node,) = nodes.all()
    assert node.state == "unknown"
    await until(lambda: node.state == "online")
    assert (edge.seen[0].method, edge.seen[0].path) == ("GET", READY)
    edge.status = 503
    await until(lambda: node.state == "offline")
    edge.status = 200
    await until(lambda: node.state == "online")
    assert node.since_s is not None, "who is back gets its share little by little"


async def test_who_does_not_answer_in_time_or_at_all_is_away(probe: Probe, start: Start, unused_tcp_port: int) -> None:
    slow = await start("slow")
    slow.hold = asyncio.Event()
    told = (
        static("slow", slow.url, health_path=READY),
        static("gone", f"http://127.0.0.1:{unused_tcp_port}", health_path=READY),
    )
    nodes = await probe(*told, timeout_s=0.1)
    await until(lambda: all(node.state == "offline" for node in nodes.all()))
    assert len(slow.seen) >= FALL


async def test_who_has_no_path_is_not_asked_and_always_online(probe: Probe, start: Start) -> None:
    asked, spared = await start("asked"), await start("spared")
    asked.status = 500
    nodes = await probe(static("asked", asked.url, health_path="/healthz"), static("spared", spared.url))
    await until(lambda: nodes.all()[0].state == "offline")
    assert (nodes.all()[1].state, spared.seen) == ("online", [])
    assert asked.seen[0].path == "/healthz"


async def test_probes_learn_the_distance(probe: Probe, start: Start) -> None:
    edge = await start("edge-tyo")
    nodes = await probe(static("edge-tyo", edge.url, TOKYO, health_path=READY))
    (node,) = nodes.all()
    prior_ms = node.rtt_ms.value()
    assert prior_ms > 100
    await until(lambda: node.rtt_ms.count > 20)
    assert node.rtt_ms.value() < prior_ms / 2


async def test_few_are_asked_at_once() -> None:
    at_once = most = 0

    async def ready(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return web.Response()

    app = web.Application()
    app.router.add_get(READY, ready)
    runner, url = await start_app(app, "127.0.0.1", 0, name="many", drain_s=0.1)
    told = [static(f"n{number}", url, health_path=READY) for number in range(3 * MOST_AT_ONCE)]
    nodes, upstreams = Nodes(DUBLIN, told), Upstreams()
    probes = Probes(nodes, told, upstreams, random.Random(1), interval_s=60.0, timeout_s=5.0)
    await probes.start()
    try:
        await until(lambda: all(node.state == "online" for node in nodes.all()))
    finally:
        await probes.stop()
        await upstreams.close()
        await runner.cleanup()
    assert most == MOST_AT_ONCE


async def test_a_node_that_nobody_has_asked_yet_is_taken_where_no_other_is_as_good() -> None:
    near, far = static("near", "http://x:1", health_path=READY), static("far", "http://y:1", TOKYO)
    nodes = Nodes(DUBLIN, [near, far])
    first, second = nodes.all()
    field = Fields(nodes, random.Random(1)).of("digits", ())
    now_s = time.monotonic()
    picks = [field.pick(now_s + at) for at in range(2)]
    assert [each.node for each in picks if each is not None] == [second, second]
    alone = Fields(Nodes(DUBLIN, [near]), random.Random(1)).of("digits", ())
    picked = alone.pick(now_s, left_ms=60.0)
    assert picked is not None, "the charge is no time: a deadline is as long as before"
    assert picked.expected_ms < 60.0
    first.put_probe("good", now_s)
    picked = field.pick(now_s)
    assert picked is not None
    assert picked.node is first


async def test_a_router_serves_from_its_start_and_evades_who_is_away(router: Route, start: Start) -> None:
    good, bad = await start("edge-fra"), await start("edge-near")
    good.confidence = bad.confidence = None
    client = await router(
        [
            static("edge-fra", good.url, FRANKFURT, health_path=READY),
            static("edge-near", bad.url, DUBLIN, health_path=READY),
        ],
        [],
        probe_interval_s=0.05,
        probe_timeout_s=0.5,
    )
    response, _ = await client.predict()
    assert response.status == 200
    bad.status = 503

    await told(client, {"online": 1, "offline": 1})
    asked = len([each for each in bad.seen if each.method == "POST"])
    for _ in range(10):
        response, _ = await client.predict()
        assert response.headers[headers.NODE] == "edge-fra"
    assert len([each for each in bad.seen if each.method == "POST"]) == asked
    bad.status = 200
    await told(client, {"online": 2})
