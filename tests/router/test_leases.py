"""Leases: the nearest first for whoever asks, nothing a caller cannot or must not reach."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.leases import Lease, RouteRequest
from contracts.messages import Status
from contracts.places import Place, prior_rtt_ms
from router.leases import CLOUD_ALONE_TTL_S, MAX_CANDIDATES, give
from router.nodes import Nodes
from tests.router.rig import ASHBURN, DUBLIN, FRANKFURT, TOKYO
from tests.router.test_selection import NOW_S, identity, reported


def world() -> Nodes:
    nodes = Nodes(DUBLIN)
    for name, site in (("edge-fra", 0), ("edge-iad", 1), ("edge-nrt", 2)):
        nodes.put_identity(identity(name, site))
        nodes.put_reported(reported(name, "digits"))
        nodes.put_status(Status(name, 1, "online"))
    nodes.put_identity(identity("edge-shop", 0, "site"))
    nodes.put_reported(reported("edge-shop", "digits"))
    nodes.put_status(Status("edge-shop", 1, "online"))
    return nodes


def given_lease(
    place: Place | None,
    *,
    nodes: Nodes | None = None,
    model: str = "digits",
    candidates: int = 3,
    residency: tuple[str, ...] = (),
    cloud: str = "http://cloud:8090",
) -> Lease:
    asked = RouteRequest(model, candidates=candidates)
    return give(
        asked,
        Terms(residency=residency),
        place,
        nodes or world(),
        cloud=cloud,
        ttl_s=30.0,
        now_s=NOW_S,
        rng=random.Random(1),
    )


@pytest.mark.parametrize(
    ("place", "first"),
    [(Place(48.8, 2.3), "edge-fra"), (Place(40.7, -74.0), "edge-iad"), (Place(-33.9, 151.2), "edge-nrt")],
)
def test_the_nearest_node_comes_first(place: Place, first: str) -> None:
    lease = given_lease(place)
    assert lease.nodes[0].node == first
    assert lease.place == place
    assert [node.rtt_ms for node in lease.nodes] == sorted(node.rtt_ms for node in lease.nodes)
    assert (lease.cloud, lease.ttl_s, lease.ticket) == ("http://cloud:8090", 30.0, "")


def test_the_distance_is_the_clients_and_not_the_routers() -> None:
    lease = given_lease(TOKYO)
    assert lease.nodes[0].rtt_ms == 1.0
    assert lease.nodes[-1].rtt_ms == pytest.approx(prior_rtt_ms(TOKYO, ASHBURN), abs=0.001)


def test_a_nodes_load_can_outweigh_its_distance() -> None:
    nodes = world()
    near = next(node for node in nodes.all() if node.name == "edge-fra")
    near.service_ms, near.in_flight = 50.0, 10
    assert given_lease(FRANKFURT, nodes=nodes).nodes[0].node == "edge-iad"


def test_nobodys_place_leaves_load_to_rank_and_says_so() -> None:
    nodes = world()
    for node in nodes.all():
        node.service_ms, node.in_flight = 10.0, 0 if node.name == "edge-nrt" else 3
    lease = given_lease(None, nodes=nodes)
    assert (lease.place, lease.nodes[0].node, lease.nodes[0].rtt_ms) == (None, "edge-nrt", 0.0)


@given(candidates=st.integers(-5, 100))
def test_the_count_is_bounded(candidates: int) -> None:
    assert len(given_lease(DUBLIN, candidates=candidates).nodes) == min(max(candidates, 1), MAX_CANDIDATES, 3)


def test_nodes_of_a_site_are_not_leased() -> None:
    assert "edge-shop" not in {node.node for node in given_lease(FRANKFURT, candidates=16).nodes}


def test_a_claim_narrows_the_lease() -> None:
    lease = given_lease(FRANKFURT, residency=("us-east",), cloud="")
    assert [node.node for node in lease.nodes] == ["edge-iad"]
    assert lease.cloud == ""


@pytest.mark.parametrize(
    ("model", "residency", "code"),
    [("digits", ("mars",), "residency_denied"), ("faces", (), "model_not_found")],
)
def test_nowhere_to_go_is_an_error_that_says_why(model: str, residency: tuple[str, ...], code: str) -> None:
    with pytest.raises(FoothillError) as raised:
        given_lease(FRANKFURT, model=model, residency=residency, cloud="")
    assert raised.value.code == code


def test_all_nodes_away_and_no_cloud_is_worth_a_retry() -> None:
    nodes = world()
    for node in nodes.all():
        nodes.put_status(Status(node.name, 2, "offline"))
    with pytest.raises(FoothillError) as raised:
        given_lease(FRANKFURT, nodes=nodes, cloud="")
    assert (raised.value.code, raised.value.retryable) == ("unavailable", True)
    lease = given_lease(FRANKFURT, nodes=nodes)
    assert (lease.nodes, lease.ttl_s) == ((), CLOUD_ALONE_TTL_S)


def test_a_model_that_only_the_cloud_may_know_gets_a_lease_with_the_cloud_alone() -> None:
    lease = given_lease(FRANKFURT, model="faces")
    assert (lease.nodes, lease.cloud) == ((), "http://cloud:8090")
