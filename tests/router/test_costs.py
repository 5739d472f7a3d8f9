"""Money in the score: an answer that costs more must come sooner by as much as told, and no deadline is shorter."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.headers import Terms
from contracts.leases import Lease
from router.config import StaticNode
from router.fields import Fields
from router.node import Node
from router.nodes import Nodes
from router.selection import TIE_MS, Query, rank, score
from runtime.links.access.grants import Allowance
from tests.router.rig import ASHBURN, DUBLIN, FRANKFURT, TOKYO, BuildRig, Start, call, static
from tests.router.test_app import Route, router  # noqa: F401 - a fixture
from tests.router.test_selection import NOW_S

NEAR, FAR = FRANKFURT, TOKYO


def pair(near_cost: float, far_cost: float, ms_per_cost_unit: float) -> Nodes:
    told = [static("near", "http://x:1", NEAR, cost=near_cost), static("far", "http://y:1", FAR, cost=far_cost)]
    return Nodes(DUBLIN, told, ms_per_cost_unit)


def best(nodes: Nodes) -> Node:
    picked = Fields(nodes, random.Random(3)).of("digits", ()).pick(NOW_S)
    assert picked is not None
    return picked.node


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1000))
def test_what_costs_more_must_be_sooner_by_as_much(near_cost: float, far_cost: float, ms_per_cost_unit: float) -> None:
    nodes = pair(near_cost, far_cost, ms_per_cost_unit)
    near, far = nodes.all()
    sooner_ms = far.rtt_ms.value() - near.rtt_ms.value()
    dearer_ms = (near_cost - far_cost) * ms_per_cost_unit
    if abs(sooner_ms - dearer_ms) > 2 * TIE_MS:
        assert best(nodes) is (near if sooner_ms > dearer_ms else far)
        ranked = rank(nodes.all(), Query("digits"), lambda node: node.rtt_ms.value(), NOW_S, random.Random(1))
        assert ranked[0].node is best(nodes), "leases are given by the same score"


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_without_a_weight_costs_choose_nothing(near_cost: float, far_cost: float) -> None:
    assert best(pair(near_cost, far_cost, 0.0)).name == "near"


@given(st.floats(0, 1e6), st.floats(1.0, 500.0))
def test_costs_are_no_time(cost: float, left_ms: float) -> None:
    """Who may answer in time without costs may with them."""
    free, dear = (Nodes(DUBLIN, [static("n0", "http://x:1", ASHBURN, cost=each)], 1.0) for each in (0.0, cost))
    picks = [Fields(nodes, random.Random(1)).of("digits", ()).pick(NOW_S, left_ms) for nodes in (free, dear)]
    assert [each.expected_ms if each is not None else None for each in picks] == [
        pytest.approx(picks[0].expected_ms, abs=1e-6) if picks[0] is not None else None
    ] * 2


def test_the_score_tells_what_costs_weigh() -> None:
    (node, _) = pair(0.5, 0.0, 40.0).all()
    told = score(node, 0.0, NOW_S)
    assert told.cost_ms == 20.0
    assert told.total_ms == told.rtt_ms + told.service_ms * told.waiting + told.failures_ms + 20.0


async def test_the_cheaper_node_has_the_requests_and_the_leases(
    router: Route,  # noqa: F811
    start: Start,
) -> None:
    dear, cheap = await start("dear"), await start("cheap")
    dear.confidence = cheap.confidence = None
    nodes: list[StaticNode] = [static("dear", dear.url, NEAR, cost=2.0), static("cheap", cheap.url, FAR, cost=1.0)]
    client = await router(nodes, [], ms_per_cost_unit=1000.0)
    for _ in range(5):
        assert (await client.predict())[0].headers["Foothill-Node"] == "cheap"
    response, told = await client.ask("POST", "/v1/route", body=b'{"model": "digits"}')
    assert (response.status, msgspec.json.decode(told, type=Lease).nodes[0].node) == (200, "cheap")
    explained = await client.json("GET", "/v1/explain?model=digits")
    assert [each["proxied"]["cost_ms"] for each in explained["candidates"]] == [1000.0, 2000.0]


async def test_answers_of_nodes_that_cost_use_up_the_budget_too(rig: BuildRig, start: Start) -> None:
    server, big = await start("edge-fra"), await start("cloud", tier="cloud", answer="7")
    made = rig([static("edge-fra", server.url, cost=0.25)], [big.url])
    server.confidence = 0.3
    asked = msgspec.structs.replace(call(terms=Terms()), tenant="kiosk", allowance=Allowance(cost_per_day=1.5))
    told = [(await made.proxy.answer(asked)).reason for _ in range(3)]
    assert told == ["doubtful", "budget", "budget"], "a node's answer costs 0.25, and one of the cloud 1 more"
    assert made.budgets.book.tenants["kiosk"].cost == 0.25 * 3 + 1.0
