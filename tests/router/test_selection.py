"""Selection: never a filtered node, always the least expected time, ties at random."""

from __future__ import annotations

import random
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.boards import Fingerprint
from contracts.messages import Identity, ModelReport, Reported, Status
from router.fields import Field, Fields
from router.node import UNKNOWN_SERVICE_MS, Node
from router.nodes import Nodes
from router.selection import Query, rank, refusal, score
from tests.router.rig import ASHBURN, DUBLIN, FRANKFURT, TOKYO

NOW_S = 100.0
FINGERPRINT = Fingerprint("cpu-x86", "x86_64", "linux", 2, 1 << 30, "cpu", "onnxruntime")
PLACES = (FRANKFURT, ASHBURN, TOKYO)
REGIONS = ("eu-central", "us-east", "ap-northeast")


def identity(name: str, site: int = 0, reach: Literal["public", "site"] = "public", sequence: int = 1) -> Identity:
    place = PLACES[site]
    return Identity(
        node=name,
        region=REGIONS[site],
        lat=place.lat,
        lon=place.lon,
        url=f"http://{name}:8100",
        reach=reach,
        public_key="",
        target="cpu-x86",
        sequence=sequence,
    )


def reported(name: str, *models: str, epoch: int = 1) -> Reported:
    told = {model: ModelReport("sha256:x", "active", serving="sha256:x", bundle=f"{model}-edge@1") for model in models}
    return Reported(name, epoch, 1, told, FINGERPRINT, 0.0)


class Drawn(msgspec.Struct):
    """One node of a drawn table."""

    site: int
    state: Literal["online", "offline", "draining", "unknown"]
    serving: bool
    reach: Literal["public", "site"]
    failures: int
    in_flight: int
    service_ms: float


drawn_nodes = st.lists(
    st.builds(
        Drawn,
        site=st.integers(0, 2),
        state=st.sampled_from(["online", "online", "online", "offline", "draining", "unknown"]),
        serving=st.sampled_from([True, True, False]),
        reach=st.sampled_from(["public", "public", "site"]),
        failures=st.sampled_from([0, 0, 1, 5]),
        in_flight=st.integers(0, 5),
        service_ms=st.floats(0, 100),
    ),
    max_size=8,
)


def table(drawn: list[Drawn]) -> Nodes:
    nodes = Nodes(DUBLIN)
    for number, one in enumerate(drawn):
        name = f"n{number}"
        nodes.put_identity(identity(name, one.site, one.reach))
        nodes.put_reported(reported(name, *(["digits"] if one.serving else [])))
        if one.state != "unknown":
            nodes.put_status(Status(name, 1, one.state))
    for node, one in zip(nodes.all(), drawn, strict=True):
        node.service_ms = one.service_ms
        for _ in range(one.failures):
            node.reserve(NOW_S)
            node.release("failed", NOW_S)
        for _ in range(one.in_flight):
            node.in_flight += 1
    return nodes


def field_of(nodes: Nodes, seed: int = 5) -> Field:
    return Fields(nodes, random.Random(seed)).of("digits", ())


@given(
    drawn=drawn_nodes,
    residency=st.sampled_from([(), ("eu-central",), ("eu-central", "us-east"), ("mars",)]),
    tried=st.sets(st.sampled_from(["n0", "n1", "n2"])),
    public_only=st.booleans(),
    ejected=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_filtered_node_is_never_picked_and_the_best_other_one_is(
    drawn: list[Drawn],
    residency: tuple[str, ...],
    tried: set[str],
    public_only: bool,
    ejected: bool,
    seed: int,
) -> None:
    nodes = table(drawn)
    query = Query("digits", residency, tried, public_only=public_only, ejected=ejected)
    fit = [
        node
        for node, one in zip(nodes.all(), drawn, strict=True)
        if one.serving
        and one.state == "online"
        and node.name not in tried
        and (not residency or REGIONS[one.site] in residency)
        and (one.reach == "public" or not public_only)
        and (ejected or node.circuit.allows(NOW_S))
    ]
    ranked = rank(nodes.all(), query, lambda node: node.rtt_ms.value(), NOW_S, random.Random(seed))
    assert {each.node.name for each in ranked} == {node.name for node in fit}
    if public_only or ejected:
        return
    picked = Fields(nodes, random.Random(seed)).of("digits", residency).pick(NOW_S, tried=tried)
    assert (picked is None) == (not fit)
    if picked is not None:
        assert picked.node in fit
        scores = {node.name: score(node, node.rtt_ms.value(), NOW_S) for node in fit}
        its = scores[picked.node.name]
        best_ms, total_ms = min(each.total_ms for each in scores.values()), its.total_ms
        assert picked.expected_ms == pytest.approx(total_ms - its.failures_ms)
        explored = picked.node.idle_ms < best_ms
        assert total_ms <= best_ms + 0.5 + 1e-6 or explored


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "offline"}, "offline"),
        ({"state": "draining"}, "draining"),
        ({"state": "unknown"}, "unknown"),
        ({"serving": False}, "not-serving"),
        ({"failures": 5}, "circuit-open"),
        ({"site": 1}, "outside-residency"),
        ({"reach": "site"}, "site-only"),
        ({}, None),
    ],
)
def test_a_refusal_says_why(change: dict[str, object], reason: str | None) -> None:
    plain = {"site": 0, "state": "online", "serving": True, "reach": "public", "failures": 0, "in_flight": 0}
    one = msgspec.convert({**plain, "service_ms": 1.0, **change}, Drawn)
    (node,) = table([one]).all()
    assert refusal(node, Query("digits", ("eu-central",), public_only=True), NOW_S) == reason


def test_the_score_is_distance_and_what_waits() -> None:
    node = Node(identity("n0"), DUBLIN)
    node.service_ms = 2.0
    node.in_flight = 3
    found = score(node, 10.0, NOW_S)
    assert (found.rtt_ms, found.service_ms, found.waiting, found.total_ms) == (10.0, 2.0, 2.75, 15.5)


def test_what_waits_is_worked_off_while_a_request_is_on_its_way_but_its_own_service_is_not() -> None:
    node = Node(identity("n0"), DUBLIN)
    node.service_ms, node.in_flight = 10.0, 3
    waiting = [score(node, rtt_ms, NOW_S).waiting for rtt_ms in (0.0, 40.0, 80.0, 200.0)]
    assert waiting == [4.0, 3.0, 2.0, 1.0]


def test_a_node_that_never_served_counts_as_an_average_one() -> None:
    nodes = table([Drawn(0, "online", True, "public", 0, 0, 40.0), Drawn(0, "online", True, "public", 0, 0, 0.0)])
    ranked = rank(nodes.all(), Query("digits"), lambda node: 0.0, NOW_S, random.Random(1))
    assert [each.score.service_ms for each in ranked] == [40.0, 40.0]


def test_where_no_node_has_told_all_are_taken_for_alike() -> None:
    assert score(Node(identity("n0"), DUBLIN), 0.0, NOW_S).service_ms == UNKNOWN_SERVICE_MS


def test_failing_fast_is_not_being_fast() -> None:
    drawn = [Drawn(0, "online", True, "public", 3, 0, 1.0), Drawn(2, "online", True, "public", 0, 0, 1.0)]
    picked = field_of(table(drawn)).pick(NOW_S)
    assert picked is not None
    assert picked.node.name == "n1"


def test_equal_nodes_share_the_requests() -> None:
    nodes = table([Drawn(0, "online", True, "public", 0, 0, 1.0) for _ in range(3)])
    field = field_of(nodes)
    picked = [field.pick(NOW_S) for _ in range(300)]
    counts = [sum(each is not None and each.node.name == f"n{number}" for each in picked) for number in range(3)]
    assert min(counts) > 60
