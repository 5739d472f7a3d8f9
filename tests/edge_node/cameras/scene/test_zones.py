"""Who is in a zone: after a while, and not before."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.scene.anchors import Sighting
from edge_node.cameras.scene.config import ZoneConfig
from edge_node.cameras.scene.events import Entered, Left
from edge_node.cameras.scene.polygons import Point
from edge_node.cameras.scene.zones import Zones
from tests.edge_node.cameras.scene.made import track_at

YARD = ZoneConfig("yard", ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)), dwell_s=1.0)
IN: Point = (0.5, 0.5)
OUT: Point = (0.1, 0.1)
EDGE: Point = (0.5, 1.2)


def walked(zones: Zones, feet: list[Point | None], every_s: float = 0.5) -> list[Entered | Left]:
    """One track; where it has no feet it is missing."""
    events: list[Entered | Left] = []
    track = track_at(OUT, -1.0)
    for tick, foot in enumerate(feet):
        track = track if foot is None else track_at(foot, tick * every_s)
        events += zones.update(Sighting([track], 800, 600, tick * every_s))
    return events


def test_who_stays_for_a_while_is_in_and_who_is_gone_for_a_while_is_out() -> None:
    assert walked(Zones([YARD]), [OUT, IN, IN, IN, IN, OUT, OUT, OUT, OUT]) == [
        Entered("yard", 1, "person", at_s=1.5, since_s=0.5),
        Left("yard", 1, "person", at_s=3.5, stayed_s=2.0),
    ]


def test_who_walks_through_the_corner_was_never_in() -> None:
    assert walked(Zones([YARD]), [OUT, IN, IN, OUT, IN, IN, OUT]) == []


def test_who_steps_out_for_a_moment_was_never_out() -> None:
    assert len(walked(Zones([YARD]), [IN, IN, IN, OUT, IN, OUT, OUT, IN, IN])) == 1


def test_without_a_time_to_wait_every_step_counts() -> None:
    zones = Zones([msgspec.structs.replace(YARD, dwell_s=0.0)])
    kinds = [type(event) for event in walked(zones, [IN, OUT, IN, OUT])]
    assert kinds == [Entered, Left, Entered, Left]


def test_who_is_missing_stays_where_it_was_seen_last() -> None:
    assert walked(Zones([YARD]), [IN, None, None, None]) == []
    assert walked(Zones([YARD]), [IN, None, IN]) == [Entered("yard", 1, "person", at_s=1.0, since_s=0.0)]
    zones = Zones([YARD])
    (entered,) = walked(zones, [IN, IN, IN, None, None, None, None])
    assert isinstance(entered, Entered)
    assert [(present.track, present.since_s) for present in zones.present("yard")] == [(1, 0.0)]


def test_whose_track_is_over_has_left() -> None:
    zones = Zones([YARD])
    walked(zones, [IN, IN, IN, IN])
    assert zones.update(Sighting([], 800, 600, 9.0)) == (Left("yard", 1, "person", at_s=9.0, stayed_s=1.5),)
    assert zones.update(Sighting([], 800, 600, 10.0)) == ()
    assert zones.present("yard") == ()


def test_a_zone_may_take_some_labels_only() -> None:
    zones = Zones([msgspec.structs.replace(YARD, labels=("car",), dwell_s=0.0)])
    people_and_cars = [track_at(IN, 0.0, 1, "person"), track_at(IN, 0.0, 2, "car")]
    assert [event.track for event in zones.update(Sighting(people_and_cars, 800, 600, 0.0))] == [2]


def test_a_box_that_reaches_beyond_the_picture_is_in_a_zone_at_its_edge() -> None:
    corner = ZoneConfig("corner", ((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)), dwell_s=0.0)
    for foot in (EDGE, (-0.1, 0.9), (1.1, 1.0), (1.0, 1.0), (0.0, 1.0)):
        assert len(Zones([corner]).update(Sighting([track_at(foot, 0.0)], 800, 600, 0.0))) == 1


@pytest.mark.parametrize(("anchor", "foot"), [("centre", (0.5, 0.79)), ("bottom-centre", (0.5, 0.74))])
def test_the_anchor_says_where_a_track_is(anchor: str, foot: Point) -> None:
    """The tracks are a tenth of the picture high."""
    below = (foot[0], foot[1] + 0.02)
    for at, inside in ((foot, 1), (below, 0)):
        zone = msgspec.convert({**msgspec.to_builtins(YARD), "anchor": anchor, "dwell_s": 0.0}, ZoneConfig)
        assert len(Zones([zone]).update(Sighting([track_at(at, 0.0)], 800, 600, 0.0))) == inside


@given(st.integers(0, 2**32 - 1), st.sampled_from([(400, 300), (1600, 1200), (1920, 300)]))
def test_what_is_told_does_not_depend_on_the_resolution(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    small, large = Zones([YARD]), Zones([YARD])
    for tick in range(40):
        there = [((float(rng.random()), float(rng.random())), number) for number in range(4) if rng.random() < 0.9]
        one = small.update(Sighting([track_at(foot, tick / 2, number) for foot, number in there], 800, 600, tick / 2))
        scaled = [track_at(foot, tick / 2, number, size=size) for foot, number in there]
        assert large.update(Sighting(scaled, *size, tick / 2)) == one


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 2)), max_size=60))
def test_who_enters_leaves_before_entering_again(steps: list[tuple[bool, float]]) -> None:
    zones, now_s, kinds = Zones([YARD]), 0.0, []
    for is_in, gap_s in steps:
        now_s += gap_s
        kinds += [
            type(event) for event in zones.update(Sighting([track_at(IN if is_in else OUT, now_s)], 800, 600, now_s))
        ]
        assert len(zones.present("yard")) == kinds.count(Entered) - kinds.count(Left)
    assert kinds == [Entered, Left] * (len(kinds) // 2) + [Entered] * (len(kinds) % 2)
