"""The nodes around a place: the nearest by great circle, whoever comes and goes."""

from __future__ import annotations

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.headers import Terms
from contracts.places import Place, distance_km
from router.leases import MAX_CANDIDATES, ranking
from router.nodes import Nodes
from router.places.located import Caller, Located
from router.places.round_trips import RoundTrips
from router.places.surroundings import NEAR, Surroundings
from router.selection import Query
from tests.router.rig import DUBLIN, static

COUNT = 2000


def world(count: int = COUNT, seed: int = 1) -> Nodes:
    rng = random.Random(seed)
    places = [Place(rng.uniform(-80, 80), rng.uniform(-180, 180)) for _ in range(count)]
    return Nodes(
        DUBLIN, [static(f"n{at}", "http://x:1", place, region=f"r{at % 4}") for at, place in enumerate(places)]
    )


MANY = world()
places = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))


@given(places)
@settings(max_examples=50)
def test_the_nearest_are_found(place: Place) -> None:
    near = Surroundings(MANY, random.Random(1)).near(Query("digits"), place)
    assert len({*near}) == NEAR
    far_km = sorted(distance_km(place, node.place) for node in MANY.all())[NEAR - 1]
    assert max(distance_km(place, node.place) for node in near) <= far_km + 0.001


def test_callers_in_one_cell_share_their_surroundings() -> None:
    surroundings = Surroundings(MANY, random.Random(1))
    assert surroundings.near(Query("digits"), Place(50.0, 8.0)) is surroundings.near(Query("digits"), Place(50.05, 8.1))


def test_a_claim_is_never_left() -> None:
    near = Surroundings(MANY, random.Random(1)).near(Query("digits", ("r2",)), Place(50.0, 8.0))
    assert {node.identity.region for node in near} == {"r2"}


def test_nowhere_has_any_nodes_around_it() -> None:
    surroundings = Surroundings(MANY, random.Random(1))
    first, second = (surroundings.near(Query("digits"), None) for _ in range(2))
    assert len({*first}) == NEAR
    assert {*first} != {*second}


def test_who_comes_is_seen() -> None:
    nodes = world(300)
    surroundings = Surroundings(nodes, random.Random(1))
    here = Place(1.0, 1.0)
    assert "new" not in [node.name for node in surroundings.near(Query("digits"), here)]
    nodes._put_static(static("new", "http://x:1", here))
    assert "new" in [node.name for node in surroundings.near(Query("digits"), here)]


def test_where_those_around_are_away_others_are_leased() -> None:
    surroundings = Surroundings(MANY, random.Random(1))
    here = Caller(None, Located(Place(50.0, 8.0), 10.0, "geoip"))
    for node in surroundings.near(Query("digits"), here.place):
        node.static = False
    try:
        ranked = ranking(
            "digits", Terms(), here, surroundings, RoundTrips(), now_s=time.monotonic(), rng=random.Random(1)
        )
    finally:
        for node in MANY.all():
            node.static = True
    assert len(ranked) >= MAX_CANDIDATES
