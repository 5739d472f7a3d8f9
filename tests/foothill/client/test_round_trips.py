"""What a client tells of the ways to its nodes: the shortest, of leased ones, without connecting."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.leases import MAX_MEASURED, RouteRequest
from foothill.client.round_trips import RoundTrips
from foothill.client.upstreams import Reply, Upstream

NODE = Upstream("http://fra:1", node="fra")
TIMING = "queue;dur=1.0, total;dur=4.0"


def reply(elapsed_ms: float, *, reused: bool = True, timing: str | None = TIMING) -> Reply:
    told = {headers.SERVER_TIMING: timing} if timing is not None else {}
    return Reply(200, told, b"", elapsed_ms, reused=reused)


def test_the_shortest_way_counts_once() -> None:
    round_trips = RoundTrips()
    for elapsed_ms in (40.0, 14.5, 25.0):
        round_trips.note(NODE, reply(elapsed_ms))
    assert round_trips.take() == {"fra": 10.5}
    assert round_trips.take() == {}


@pytest.mark.parametrize(
    ("upstream", "answer"),
    [
        (NODE, reply(40.0, reused=False)),
        (NODE, reply(40.0, timing=None)),
        (NODE, reply(40.0, timing="queue;dur=1.0")),
        (NODE, reply(20_000.0)),
        (Upstream("http://cloud:1"), reply(40.0)),
    ],
)
def test_what_shows_no_round_trip_to_a_node_does_not_count(upstream: Upstream, answer: Reply) -> None:
    round_trips = RoundTrips()
    round_trips.note(upstream, answer)
    assert round_trips.take() == {}


def test_what_was_taken_in_vain_is_put_back_beside_what_came_since() -> None:
    round_trips = RoundTrips()
    round_trips.note(NODE, reply(14.0))
    taken = round_trips.take()
    round_trips.note(NODE, reply(24.0))
    round_trips.put_back(taken | {"iad": 90.0})
    assert round_trips.take() == {"fra": 10.0, "iad": 90.0}


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1e6)), max_size=60))
def test_a_router_takes_whatever_is_told(replies: list[tuple[int, float]]) -> None:
    round_trips = RoundTrips()
    for node, elapsed_ms in replies:
        round_trips.note(Upstream("http://n:1", node=f"n{node}"), reply(elapsed_ms))
    measured_ms = round_trips.take()
    assert len(measured_ms) <= MAX_MEASURED
    asked = RouteRequest("digits", measured_ms=measured_ms)
    assert msgspec.json.decode(msgspec.json.encode(asked), type=RouteRequest) == asked
