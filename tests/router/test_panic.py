"""Panic: where most nodes seem ill at once, what the few have no room for goes to the others, and only then."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.gradient import Gradient2
from contracts.messages import Status
from router.fields import FADE_S, PANIC, Field, Fields
from router.health import FALL
from router.node import Node
from router.nodes import Nodes
from tests.router.rig import DUBLIN, BuildRig, Rig, Server, Start, call, static
from tests.router.test_app import Client, Route, router  # noqa: F401 - a fixture
from tests.router.test_fields import fail
from tests.router.test_probes import told
from tests.router.test_selection import NOW_S, identity, reported
from tests.runtime.raw_caller import until

READY = "/v2/health/ready"


def ill(node: Node) -> None:
    for _ in range(FALL):
        node.put_probe("bad", NOW_S)


def field_of(nodes: Nodes) -> Field:
    return Fields(nodes, random.Random(1)).of("digits", ())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=8))
def test_those_left_alone_are_asked_where_fewer_than_half_are_well_and_never_those_that_are_full(
    drawn: list[tuple[bool, int]],
) -> None:
    nodes = Nodes(DUBLIN, [static(f"n{at}", "http://x:1", health_path=READY) for at in range(len(drawn))])
    for node, (well, in_flight) in zip(nodes.all(), drawn, strict=True):
        node.put_probe("good", NOW_S)
        node.most, node.in_flight = 2.0, in_flight
        if not well:
            ill(node)
    picked = field_of(nodes).ejected(NOW_S)
    panics = sum(well for well, _ in drawn) < PANIC * len(drawn)
    left = {f"n{at}" for at, (well, in_flight) in enumerate(drawn) if not well and in_flight < 2}
    assert (picked is not None) == (panics and bool(left))
    assert picked is None or picked.node.name in left


def test_who_says_that_it_is_gone_or_goes_is_never_asked_and_does_not_count() -> None:
    nodes = Nodes(DUBLIN)
    for at, state in enumerate(("online", "offline", "draining", "offline")):
        nodes.put_identity(identity(f"n{at}"))
        nodes.put_reported(reported(f"n{at}", "digits"))
        nodes.put_status(Status(f"n{at}", 1, state), NOW_S)  # type: ignore[arg-type]
    field = field_of(nodes)
    assert field.ejected(NOW_S) is None
    fail(nodes.all()[0])
    picked = field.ejected(NOW_S + FADE_S)
    assert picked is not None
    assert picked.node.name == "n0"


def test_a_claim_is_not_left_in_panic_either() -> None:
    rows = [static(f"n{at}", "http://x:1", region=f"r{at % 2}", health_path=READY) for at in range(6)]
    nodes = Nodes(DUBLIN, rows)
    for node in nodes.all():
        ill(node)
    field = Fields(nodes, random.Random(1)).of("digits", ("r1",))
    tried: set[str] = set()
    while (picked := field.ejected(NOW_S, tried=tried)) is not None:
        tried.add(picked.node.name)
    assert tried == {"n1", "n3", "n5"}


async def full(rig: BuildRig, start: Start, *, of: int, are_ill: int) -> tuple[Rig, list[Server]]:
    """So many nodes, of which the last seem ill, and each of the others has its one request."""
    servers = [await start(f"edge-{at}") for at in range(of)]
    made = rig([static(server.name, server.url, health_path=READY) for server in servers], [])
    for node, server in zip(made.nodes.all(), servers, strict=True):
        node.limit, node.most = Gradient2(1), 1.0
        if int(server.name[-1]) >= of - are_ill:
            ill(node)
        else:
            node.put_probe("good", NOW_S)
            server.hold = asyncio.Event()
    return made, servers


async def test_most_are_ill_so_they_are_asked_before_anybody_is_refused(rig: BuildRig, start: Start) -> None:
    made, servers = await full(rig, start, of=4, are_ill=3)
    held = asyncio.create_task(made.proxy.answer(call()))
    await until(lambda: made.in_flight() == 1)
    settled = await made.proxy.answer(call())
    assert settled.answer.headers["Foothill-Node"] in {"edge-1", "edge-2", "edge-3"}
    assert servers[0].hold is not None
    servers[0].hold.set()
    assert (await held).answer.headers["Foothill-Node"] == "edge-0"
    for server in servers[1:]:
        server.status = 500
    servers[0].hold.clear()
    held = asyncio.create_task(made.proxy.answer(call()))
    await until(lambda: made.in_flight() == 1)
    with pytest.raises(FoothillError, match="as many requests") as refused:
        await made.proxy.answer(call())
    assert refused.value.code == "overloaded", "where they are ill indeed, it is that the others are full"
    servers[0].hold.set()
    await held


async def test_half_are_ill_so_it_is_believed(rig: BuildRig, start: Start) -> None:
    made, servers = await full(rig, start, of=4, are_ill=2)
    held = [asyncio.create_task(made.proxy.answer(call())) for _ in range(2)]
    await until(lambda: made.in_flight() == 2)
    with pytest.raises(FoothillError, match="as many requests"):
        await made.proxy.answer(call())
    for server in servers[:2]:
        assert server.hold is not None
        server.hold.set()
    await asyncio.gather(*held)
    assert [len(server.seen) for server in servers[2:]] == [0, 0]


async def test_where_all_probes_fail_nodes_are_asked_all_the_same(
    router: Route,  # noqa: F811
    start: Start,
) -> None:
    edge = await start("edge-fra")
    edge.confidence = None
    slow = static("edge-fra", edge.url, health_path=READY)
    client: Client = await router([slow], [], probe_interval_s=0.05, probe_timeout_s=1e-6)
    await told(client, {"offline": 1})
    for _ in range(3):
        response, _ = await client.predict()
        assert response.status == 200
