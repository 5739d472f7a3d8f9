"""The table: what a message may change, in any order, and what an answer teaches."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.messages import Load, NodeState, Status
from contracts.places import Place, prior_rtt_ms
from router.node import FRESH_S, Ending, Node, parse_load
from router.nodes import QUIET_S, Nodes
from router.selection import Query, refusal
from runtime.links.http.upstream import Answer, answer_headers
from tests.router.rig import DUBLIN, FRANKFURT, static
from tests.router.test_selection import NOW_S, identity, reported

ORDERS = list(range(4))


def answered(hop_ms: float, total_ms: float, load: str = "") -> Answer:
    told = {headers.SERVER_TIMING: f"total;dur={total_ms}", headers.LOAD: load}
    return Answer(200, answer_headers(told), b"", hop_ms)


@given(st.permutations(ORDERS))
def test_messages_in_any_order_make_the_same_node(order: list[int]) -> None:
    nodes = Nodes(DUBLIN)
    steps = [
        lambda: nodes.put_identity(identity("n0")),
        lambda: nodes.put_status(Status("n0", 5, "offline")),
        lambda: nodes.put_status(Status("n0", 6, "online")),
        lambda: nodes.put_reported(reported("n0", "digits")),
    ]
    for number in order:
        steps[number]()
    (node,) = nodes.all()
    assert (node.state, node.models, nodes.serving("digits")) == ("online", {"digits": "digits-edge@1"}, [node])


def test_the_will_of_an_older_life_changes_nothing() -> None:
    nodes = Nodes(DUBLIN)
    nodes.put_identity(identity("n0"))
    nodes.put_status(Status("n0", 6, "online"))
    nodes.put_status(Status("n0", 5, "offline"))
    assert nodes.all()[0].state == "online"
    nodes.put_status(Status("n0", 6, "offline"))
    assert nodes.all()[0].state == "offline"


def test_without_an_identity_a_node_is_only_a_name() -> None:
    nodes = Nodes(DUBLIN)
    nodes.put_status(Status("ghost", 1, "online"))
    nodes.put_reported(reported("ghost", "digits"))
    nodes.put_load(Load("ghost", 1, 3, 0.0, 1.0), NOW_S)
    assert (nodes.all(), nodes.serving("digits"), nodes.unidentified()) == ([], [], ["ghost"])


def test_a_model_that_is_no_longer_served_is_forgotten() -> None:
    nodes = Nodes(DUBLIN)
    nodes.put_identity(identity("n0"))
    nodes.put_reported(reported("n0", "digits", "faces"))
    assert set(nodes.models()) == {"digits", "faces"}
    nodes.put_reported(reported("n0", "faces"))
    assert set(nodes.models()) == {"faces"}
    nodes.put_reported(reported("n0", "old", epoch=0))
    assert set(nodes.models()) == {"faces"}


def test_a_node_that_moved_is_learned_anew_and_an_older_identity_ignored() -> None:
    nodes = Nodes(DUBLIN)
    nodes.put_identity(identity("n0", sequence=2))
    nodes.put_status(Status("n0", 1, "online"))
    before = nodes.all()[0]
    nodes.put_identity(identity("n0", site=1, sequence=1))
    assert nodes.all() == [before]
    nodes.put_identity(identity("n0", site=0, sequence=3))
    assert nodes.all() == [before]
    nodes.put_identity(identity("n0", site=2, sequence=4))
    (after,) = nodes.all()
    assert after is not before
    assert (after.state, after.identity.region) == ("online", "ap-northeast")


def test_distance_starts_at_the_prior_and_moves_to_what_is_measured() -> None:
    node = Node(identity("n0"), DUBLIN)
    prior_ms = prior_rtt_ms(DUBLIN, FRANKFURT)
    assert node.rtt_ms.value() == prior_ms
    for _ in range(5):
        node.note_answer(answered(110.0, 10.0), NOW_S)
    assert abs(node.rtt_ms.value() - (prior_ms + 100.0) / 2) < 1e-9
    for _ in range(500):
        node.note_answer(answered(110.0, 10.0), NOW_S)
    assert 90 < node.rtt_ms.value() < 100


def test_without_a_place_of_the_router_distance_is_only_measured() -> None:
    assert Node(identity("n0"), None).rtt_ms.value() == 0.0


def test_what_others_have_there_fades_when_nobody_says_so_again() -> None:
    node = Node(identity("n0"), DUBLIN)
    node.reserve(NOW_S)
    node.note_answer(answered(10.0, 5.0, "in_flight=9;queue_ms=1;service_ms=3"), NOW_S)
    assert (node.others_in_flight(NOW_S), node.service_ms) == (8.0, 3.0)
    assert node.others_in_flight(NOW_S + 1) == 4.0
    assert node.others_in_flight(NOW_S + 30) < 0.001
    node.note_load(Load("n0", 1, 3, 0.0, 0.0), NOW_S + 30)
    assert (node.others_in_flight(NOW_S + 30), node.service_ms) == (2.0, 3.0)


def test_what_a_node_tells_of_its_service_is_noise_until_it_has_changed() -> None:
    node = Node(identity("n0"), DUBLIN)
    node.note_load(Load("n0", 1, 0, 0.0, 10.0), NOW_S)
    for number in range(20):
        node.note_load(Load("n0", 1, 0, 0.0, 14.0 if number % 2 else 8.0), NOW_S)
    assert 9.5 < node.service_ms < 11.5
    node.note_load(Load("n0", 1, 0, 0.0, 40.0), NOW_S)
    assert node.service_ms == 40.0
    node.note_load(Load("n0", 1, 0, 0.0, 12.0), NOW_S)
    assert node.service_ms == 12.0


def test_one_word_of_what_others_have_there_is_of_one_moment_only() -> None:
    node = Node(identity("n0"), DUBLIN)
    node.note_load(Load("n0", 1, 10, 0.0, 3.0), NOW_S)
    node.note_load(Load("n0", 1, 0, 0.0, 3.0), NOW_S + 0.001)
    assert 6.0 < node.others_in_flight(NOW_S + 0.001) < 8.0
    node.note_load(Load("n0", 1, 0, 0.0, 3.0), NOW_S + 2.0)
    assert node.others_in_flight(NOW_S + 2.0) == 0.0


def test_load_of_an_older_life_is_not_believed() -> None:
    nodes = Nodes(DUBLIN)
    nodes.put_identity(identity("n0"))
    nodes.put_status(Status("n0", 7, "online"))
    nodes.put_load(Load("n0", 6, 50, 0.0, 9.0), NOW_S)
    assert nodes.all()[0].others_in_flight(NOW_S) == 0.0


def test_static_nodes_are_online_and_serve_what_they_were_told() -> None:
    nodes = Nodes(DUBLIN, [static("n0", "http://n0:8100", Place(0, 0))])
    (node,) = nodes.serving("digits")
    assert (node.state, node.identity.url) == ("online", "http://n0:8100")


ENDINGS: tuple[Ending, ...] = ("succeeded", "failed", "abandoned")


@given(st.lists(st.sampled_from(ENDINGS), max_size=40), st.randoms(use_true_random=False))
def test_what_is_reserved_is_released(endings: list[Ending], rng: random.Random) -> None:
    node = Node(identity("n0"), DUBLIN)
    open_ones = 0
    for number, ending in enumerate(endings):
        node.reserve(NOW_S + number)
        open_ones += 1
        while open_ones and rng.random() < 0.6:
            node.release(ending, NOW_S + number)
            open_ones -= 1
        assert node.in_flight == open_ones


@given(st.text(max_size=300))
def test_no_load_header_is_worth_a_failure(value: str) -> None:
    assert all(figure >= 0 for figure in parse_load(value).values())


def test_a_load_that_cannot_be_is_no_load() -> None:
    assert parse_load("in_flight=1e300;queue_ms=nan;service_ms=-2;x=inf") == {}


def heard(*names: str) -> Nodes:
    """Nodes that have said at `NOW_S` that they are online."""
    nodes = Nodes(DUBLIN)
    for name in names:
        nodes.put_identity(identity(name))
        nodes.put_status(Status(name, 1, "online"), NOW_S)
    return nodes


def test_who_is_not_heard_while_others_are_is_unknown_until_it_says_something() -> None:
    nodes = heard("n0", "n1")
    for second in range(3 * int(QUIET_S)):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), NOW_S + second)
    talks, hangs = nodes.all()
    assert (talks.state, hangs.state, hangs.doubtful) == ("online", "unknown", True)
    assert refusal(hangs, Query("digits"), NOW_S + 45) == "not-serving", "it may be asked, at a charge"
    pulse = nodes.pulse
    nodes.put_load(Load("n1", 1, 0, 0.0, 1.0), NOW_S + 45)
    assert (hangs.state, nodes.pulse) == ("online", pulse + 1)
    assert hangs.since_s is None, "it never was away"


def test_an_answer_is_a_word_too() -> None:
    nodes = heard("n0", "n1")
    for second in range(3 * int(QUIET_S)):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), NOW_S + second)
        nodes.all()[1].note_answer(answered(10.0, 5.0), NOW_S + second)
    assert nodes.all()[1].state == "online"


def test_an_answer_of_a_quiet_node_counts_at_once() -> None:
    nodes = heard("n0", "n1")
    for second in range(3 * int(QUIET_S)):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), NOW_S + second)
    hangs = nodes.all()[1]
    assert hangs.state == "unknown"
    hangs.note_answer(answered(10.0, 5.0), NOW_S + 60.0)
    assert (hangs.state, hangs.charge_ms) == ("online", 0.0)


def test_of_very_many_nodes_all_are_looked_at_in_turn() -> None:
    nodes = heard(*(f"n{number}" for number in range(300)))
    for number in range(400):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), NOW_S + number / 4)
    assert [node.name for node in nodes.all() if node.state == "online"] == ["n0"]


def test_a_router_that_hears_nobody_thinks_ill_of_nobody() -> None:
    nodes = heard("n0", "n1")
    for name in ("n0", "n1"):
        nodes.put_load(Load(name, 1, 0, 0.0, 1.0), NOW_S)
    back_s = NOW_S + 10 * QUIET_S
    for number in range(int(QUIET_S)):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), back_s + number)
    assert [node.state for node in nodes.all()] == ["online", "online"]
    for number in range(int(QUIET_S), 2 * int(QUIET_S)):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), back_s + number)
    assert [node.state for node in nodes.all()] == ["online", "unknown"]


@given(st.sampled_from(["offline", "draining"]))
def test_what_a_node_has_said_of_leaving_stays_true_when_it_says_no_more(state: NodeState) -> None:
    nodes = heard("n0", "n1")
    nodes.put_status(Status("n1", 1, state), NOW_S)
    for second in range(3 * int(QUIET_S)):
        nodes.put_load(Load("n0", 1, 0, 0.0, 1.0), NOW_S + second)
    assert nodes.all()[1].state == state


@given(st.floats(0.1, 1000.0), st.floats(0.1, 1000.0), st.lists(st.floats(0.0, 300.0), min_size=2, max_size=5))
def test_an_old_word_on_service_fades_to_what_is_usual(told_ms: float, usual_ms: float, ages_s: list[float]) -> None:
    node = Node(identity("n0"), DUBLIN)
    node.usual_ms = usual_ms
    node.note_load(Load("n0", 1, 0, 0.0, told_ms), NOW_S)
    assert node.pace_ms(NOW_S + FRESH_S) == told_ms
    off_ms = [abs(node.pace_ms(NOW_S + age_s) - usual_ms) for age_s in sorted(ages_s)]
    assert off_ms == sorted(off_ms, reverse=True)
    assert abs(node.pace_ms(NOW_S + 30 * FRESH_S) - usual_ms) < 1e-4 * max(told_ms, usual_ms)
