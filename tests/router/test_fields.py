"""The field: the best of the near nodes, others when those are busy, at times one that may have become good."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages import Status
from contracts.places import Place
from router.fields import EXPLORE, NEAR, Field, Fields
from router.node import LARGE_BYTES, MOST_IN_FLIGHT, SLOW_START, SLOW_START_S, Node
from router.nodes import MOST_EJECTED, Nodes
from router.selection import Query, refusal, score
from runtime.links.escalation.estimates import Shrunk
from tests.router.rig import DUBLIN, static
from tests.router.test_selection import NOW_S, identity, reported


def near_and_far(count: int, *, step: float = 0.5, model: str = "digits") -> Nodes:
    """Nodes ever further east of the router, each with a region of its own."""
    places = [Place(DUBLIN.lat, DUBLIN.lon + step * number) for number in range(count)]
    return Nodes(
        DUBLIN,
        [static(f"n{number}", "http://x:1", at, region=f"r{number}", model=model) for number, at in enumerate(places)],
    )


def field_of(nodes: Nodes, *, residency: tuple[str, ...] = (), seed: int = 3) -> Field:
    return Fields(nodes, random.Random(seed)).of("digits", residency)


def picked(field: Field, now_s: float = NOW_S, **asked: float) -> Node:
    found = field.pick(now_s, **asked)  # type: ignore[arg-type]
    assert found is not None
    return found.node


def fail(node: Node, times: int = 5, now_s: float = NOW_S) -> None:
    for _ in range(times):
        node.reserve(now_s)
        node.release("failed", now_s)


def test_the_nearest_of_equal_nodes_is_picked_until_it_is_busy() -> None:
    nodes = near_and_far(3, step=5.0)
    field, order = field_of(nodes), []
    for _ in range(40):
        order.append(picked(field))
        order[-1].reserve(NOW_S)
    assert {node.name for node in order[:1]} == {"n0"}
    assert Counter(node.name for node in order).keys() == {"n0", "n1", "n2"}


@given(loads=st.lists(st.integers(0, 9), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_what_is_at_hand_is_what_the_score_says(loads: list[int], seed: int) -> None:
    nodes = near_and_far(len(loads))
    field = field_of(nodes, seed=seed)
    for node, load in zip(nodes.all(), loads, strict=True):
        node.service_ms = 1.0 + load
        for _ in range(load):
            node.reserve(NOW_S)
    found = field.pick(NOW_S)
    assert found is not None
    assert found.expected_ms == pytest.approx(score(found.node, found.node.rtt_ms.value(), NOW_S).total_ms)


def test_of_thousands_the_near_ones_are_compared_and_others_take_what_they_cannot() -> None:
    nodes = near_and_far(2000, step=0.05)
    field = field_of(nodes)
    names = {node.name for node in nodes.all()[:NEAR]}
    assert all(picked(field).name in names for _ in range(200))
    for node in nodes.all()[:NEAR]:
        for _ in range(200):
            node.reserve(NOW_S)
    assert sum(picked(field, NOW_S + 1).name not in names for _ in range(200)) > 150


def test_one_pick_in_a_hundred_looks_where_it_may_have_become_good() -> None:
    nodes = near_and_far(2, step=0.1)
    first, second = nodes.all()
    first.service_ms = second.service_ms = 10.0
    for _ in range(4):
        second.reserve(NOW_S)
    second._others.replace(8.0, NOW_S)
    field = field_of(nodes)
    counts = Counter(picked(field).name for _ in range(4000))
    assert counts["n1"] == 0, "it is further away, idle or not"
    first._others.replace(20.0, NOW_S)
    counts = Counter(picked(field, NOW_S + 0.2).name for _ in range(4000))
    assert 0.3 * EXPLORE < counts["n0"] / 4000 < 3 * EXPLORE


def test_an_answer_that_would_be_late_is_asked_elsewhere_or_nowhere() -> None:
    nodes = near_and_far(2, step=10.0)
    near, far = nodes.all()
    near.service_ms = far.service_ms = 10.0
    for _ in range(20):
        near.reserve(NOW_S)
    field = field_of(nodes)
    far_ms = far.rtt_ms.value() + 10.0
    assert picked(field, left_ms=2 * far_ms) is far
    assert field.pick(NOW_S, left_ms=far_ms / 2) is None
    assert field.here(NOW_S, left_ms=15.0)
    assert not field.here(NOW_S, left_ms=5.0)


def test_those_as_good_as_the_best_are_picked_alike_wherever_they_stand() -> None:
    nodes = near_and_far(12, step=5.0)
    for node in nodes.all()[:2]:
        node.service_ms = 5.0
        node.rtt_ms = Shrunk(1.0)
    counts = Counter(picked(field_of(nodes, seed=seed)).name for seed in range(400))
    assert counts.keys() == {"n0", "n1"}
    assert min(counts.values()) > 140


def test_a_full_node_gets_nothing_more() -> None:
    nodes = near_and_far(1)
    (node,) = nodes.all()
    field = field_of(nodes)
    for _ in range(MOST_IN_FLIGHT):
        picked(field).reserve(NOW_S)
    assert field.pick(NOW_S) is None
    assert field.last(NOW_S) is None
    node.release("succeeded", NOW_S)
    assert picked(field) is node


def test_a_large_body_goes_where_there_is_bandwidth() -> None:
    nodes = near_and_far(2, step=3.0)
    near, far = nodes.all()
    for _ in range(50):
        near.transfer_ms_per_mb.measure(500.0)
        far.transfer_ms_per_mb.measure(1.0)
    field = field_of(nodes)
    assert picked(field, size_bytes=1000) is near
    assert picked(field, size_bytes=10 * LARGE_BYTES) is far


def test_a_claim_is_never_left() -> None:
    nodes = near_and_far(5)
    field = field_of(nodes, residency=("r3",))
    assert {picked(field).name for _ in range(50)} == {"n3"}
    fail(nodes.all()[3])
    assert field.pick(NOW_S) is None
    last = field.last(NOW_S)
    assert last is not None
    assert last.node.name == "n3", "the last one inside a claim is asked even if it keeps failing"
    assert field.last(NOW_S, tried={"n3"}) is None


def test_a_node_that_went_is_seen_at_once_and_one_that_came_too() -> None:
    nodes = Nodes(DUBLIN)
    for name in ("n0", "n1"):
        nodes.put_identity(identity(name))
        nodes.put_reported(reported(name, "digits"))
        nodes.put_status(Status(name, 1, "online"), NOW_S)
    field = field_of(nodes)
    assert {picked(field).name for _ in range(50)} == {"n0", "n1"}
    nodes.put_status(Status("n0", 1, "offline"), NOW_S)
    assert {picked(field).name for _ in range(50)} == {"n1"}
    nodes.put_reported(reported("n1", "faces"))
    assert field.pick(NOW_S) is None
    nodes.put_status(Status("n0", 1, "online"), NOW_S)
    assert picked(field).name == "n0"


def test_a_node_that_is_back_gets_its_share_little_by_little() -> None:
    nodes = Nodes(DUBLIN)
    nodes.put_identity(identity("n0"))
    nodes.put_status(Status("n0", 1, "online"), NOW_S)
    (node,) = nodes.all()
    node.service_ms = 10.0
    assert node.pace_ms(NOW_S) == 10.0, "at the start of the router all are alike"
    nodes.put_status(Status("n0", 1, "offline"), NOW_S)
    nodes.put_status(Status("n0", 2, "online"), NOW_S)
    paces = [node.pace_ms(NOW_S + SLOW_START_S * share) for share in (0.0, 0.05, 0.5, 1.0, 2.0)]
    assert paces == pytest.approx([10.0 / SLOW_START, 10.0 / SLOW_START, 20.0, 10.0, 10.0])


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 1), (4, 1), (10, 3), (20, 6)])
def test_no_more_than_a_part_of_a_group_is_left_alone(count: int, most: int) -> None:
    nodes = near_and_far(count)
    for node in nodes.all():
        fail(node, 30)
    left_alone = [node for node in nodes.all() if refusal(node, Query("digits"), NOW_S) == "circuit-open"]
    assert len(left_alone) == most == max(1, int(MOST_EJECTED * count))


def test_a_probe_decides_and_only_one_goes_at_a_time() -> None:
    nodes = near_and_far(2, step=10.0)
    near, far = nodes.all()
    field = field_of(nodes)
    fail(near)
    assert {picked(field) for _ in range(20)} == {far}
    later_s = near.circuit.open_until_s
    probe = picked(field, later_s)
    assert probe is near
    probe.reserve(later_s)
    assert {picked(field, later_s) for _ in range(20)} == {far}
    probe.release("succeeded", later_s)
    assert near.circuit.state == "closed"
    assert near.failing(later_s) == 0.0, "what it did before the circuit opened is forgiven"


def test_a_node_that_failed_once_is_tried_again_soon_and_one_request_at_a_time() -> None:
    nodes = near_and_far(2, step=10.0)
    near, far = nodes.all()
    near.service_ms = far.service_ms = 5.0
    field = field_of(nodes)
    fail(near, 1)
    assert {picked(field, NOW_S + 0.4) for _ in range(50)} == {far}
    trial = picked(field, NOW_S + 0.6)
    assert trial is near
    trial.reserve(NOW_S + 0.6)
    assert {picked(field, NOW_S + 5.0) for _ in range(50)} == {far}
    trial.release("failed", NOW_S + 5.0)
    assert {picked(field, NOW_S + 5.2) for _ in range(50)} == {far}
    now_s = NOW_S + 5.6
    for _ in range(30):
        node = picked(field, now_s)
        node.reserve(now_s)
        node.release("succeeded", now_s)
        now_s += 0.15
    assert picked(field, now_s) is near, "trials that go well follow each other until it is believed again"


def test_trials_are_a_small_share_of_few_requests_too() -> None:
    nodes = near_and_far(2, step=10.0)
    near, far = nodes.all()
    near.service_ms = far.service_ms = 5.0
    field = field_of(nodes)
    fail(near, 1)
    now_s, tries = NOW_S, 0
    for _ in range(100):
        now_s += 2.0
        node = picked(field, now_s)
        node.reserve(now_s)
        tries += node is near
        node.release("failed" if node is near else "succeeded", now_s)
    assert 1 <= tries <= 12


def test_a_node_that_was_slow_when_it_was_last_asked_is_asked_again() -> None:
    nodes = near_and_far(3, step=0.1)
    near = nodes.all()[0]
    field = field_of(nodes)
    for node in nodes.all():
        node.learn(5.0, 4.5, "service_ms=5", NOW_S, 100, 5.0)
    near.learn(100.0, 99.0, "service_ms=100", NOW_S, 100, 5.0)
    assert near not in {picked(field, NOW_S + 0.5) for _ in range(200)}
    assert near in {picked(field, NOW_S + 1.5 + 0.15 * number) for number in range(60)}


def test_who_has_tried_others_is_not_sent_to_look() -> None:
    nodes = near_and_far(3, step=10.0)
    near, second, third = nodes.all()
    for node in nodes.all():
        node.service_ms = 5.0
    field = field_of(nodes)
    fail(near, 1)
    for number in range(300):
        found = field.pick(NOW_S + 0.01 * number, tried={second.name})
        assert found is not None
        assert found.node is third


def test_a_pick_that_came_to_nothing_is_the_next_ones() -> None:
    nodes = near_and_far(2, step=10.0)
    near, far = nodes.all()
    near.service_ms = far.service_ms = 5.0
    field = field_of(nodes)
    fail(near, 1)
    trial = field.pick(NOW_S + 0.6)
    assert trial is not None
    assert trial.node is near
    field.keep(trial)
    tried = field.pick(NOW_S + 0.6, tried={near.name})
    assert tried is not None
    assert tried.node is far
    assert picked(field, NOW_S + 0.6) is near
    assert picked(field, NOW_S + 0.6) is far
    field.keep(trial)
    assert picked(field, NOW_S + 0.6, left_ms=1000.0) is near
    field.keep(trial)
    fail(near, 5, NOW_S + 0.6)
    assert picked(field, NOW_S + 0.6) is far, "its circuit has opened meanwhile"


def test_what_failures_are_charged_as_is_no_time() -> None:
    nodes = near_and_far(1)
    (node,) = nodes.all()
    field = field_of(nodes)
    before = field.pick(NOW_S)
    fail(node, 1)
    after = field.pick(NOW_S + 0.2)
    assert before is not None
    assert after is not None
    assert after.expected_ms == pytest.approx(before.expected_ms)
    assert node.charge_ms > 50.0


def test_made_up_claims_do_not_pile_up() -> None:
    nodes = near_and_far(1)
    fields = Fields(nodes, random.Random(1))
    for number in range(1000):
        fields.of("digits", (f"region-{number}",))
    assert len(fields._fields) <= 256
