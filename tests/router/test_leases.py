"""Leases: the nearest first for whoever asks, nothing a caller cannot or must not reach."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

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
from router.places.located import Caller, Located
from router.places.round_trips import RoundTrips
from router.places.surroundings import Surroundings
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


CALLER = IPv4Address("203.0.113.9")
NEIGHBOUR = IPv4Address("203.0.113.77")
STRANGER = IPv4Address("203.0.114.9")


def given_lease(
    place: Place | None,
    *,
    address: IPv4Address | None = CALLER,
    round_trips: RoundTrips | None = None,
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
        Caller(address, Located(place, 10.0, "geoip") if place is not None else None),
        Surroundings(nodes or world(), random.Random(1)),
        round_trips or RoundTrips(),
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


def measured(count: int, **rtt_ms: float) -> RoundTrips:
    made = RoundTrips()
    for _ in range(count):
        told = {name.replace("_", "-"): value for name, value in rtt_ms.items()}
        made.note(NEIGHBOUR, told, list(told))
    return made


def test_what_neighbours_measured_corrects_a_wrong_place() -> None:
    """GeoIP says Tokyo; the network stands in Frankfurt, as its round trips show."""
    round_trips = measured(40, edge_nrt=240.0, edge_fra=8.0)
    assert given_lease(TOKYO, round_trips=round_trips).nodes[0].node == "edge-fra"
    assert given_lease(TOKYO, round_trips=round_trips, address=STRANGER).nodes[0].node == "edge-nrt"
    assert given_lease(TOKYO, round_trips=round_trips, address=None).nodes[0].node == "edge-nrt"


def test_one_sample_moves_the_estimate_by_a_sixth() -> None:
    lease = given_lease(FRANKFURT, round_trips=measured(1, edge_fra=61.0))
    assert next(node.rtt_ms for node in lease.nodes if node.node == "edge-fra") == pytest.approx(1.0 + 60.0 / 6)


def test_from_nowhere_no_round_trip_counts() -> None:
    assert {node.rtt_ms for node in given_lease(None, round_trips=measured(20, edge_fra=8.0)).nodes} == {0.0}


@given(
    place=st.none() | st.builds(Place, st.floats(-90, 90), st.floats(-180, 180)),
    rtts=st.dictionaries(st.sampled_from(["edge-fra", "edge-iad", "edge-nrt", "edge-shop"]), st.floats(0, 10_000)),
)
def test_neither_place_nor_round_trips_open_a_region(place: Place | None, rtts: dict[str, float]) -> None:
    round_trips = RoundTrips()
    for _ in range(10):
        round_trips.note(CALLER, rtts, rtts)
    lease = given_lease(place, round_trips=round_trips, candidates=16, residency=("us-east", "eu-central"), cloud="")
    assert {node.node for node in lease.nodes} == {"edge-iad", "edge-fra"}
