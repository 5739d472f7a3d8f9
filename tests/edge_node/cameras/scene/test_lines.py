"""Who crosses a line: once each way, however the box trembles."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.scene.anchors import Sighting
from edge_node.cameras.scene.config import LineConfig
from edge_node.cameras.scene.lines import Lines
from edge_node.cameras.scene.polygons import Point
from tests.edge_node.cameras.scene.made import track_at

DOOR = LineConfig("door", (0.2, 0.5), (0.8, 0.5), margin=0.02)
ABOVE: Point = (0.5, 0.4)
BELOW: Point = (0.5, 0.6)
BESIDE: Point = (0.95, 0.5)


def directions(line: LineConfig, feet: list[Point | None], size: tuple[int, int] = (800, 600)) -> list[str]:
    """Of one track; where it has no feet it is missing."""
    lines, told, track = Lines([line]), list[str](), track_at(ABOVE, -1.0)
    for tick, foot in enumerate(feet):
        track = track if foot is None else track_at(foot, float(tick), size=size)
        told += [event.direction for event in lines.update(Sighting([track], *size, float(tick)))]
    return told


def way(*stations: Point, steps: int = 20) -> list[Point | None]:
    """Straight from one to the next."""
    feet: list[Point | None] = []
    for start, end in pairwise(stations):
        shares = np.linspace(0, 1, steps, endpoint=False).tolist()
        feet += [(start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in shares]
    return [*feet, stations[-1]]


def test_in_is_from_the_left_hand_to_the_right_of_who_goes_along_the_line() -> None:
    assert directions(DOOR, way(ABOVE, BELOW)) == ["in"]
    assert directions(DOOR, way(BELOW, ABOVE)) == ["out"]
    other_way = msgspec.structs.replace(DOOR, start=DOOR.end, end=DOOR.start)
    assert directions(other_way, way(ABOVE, BELOW)) == ["out"]


def test_every_way_back_counts() -> None:
    assert directions(DOOR, way(ABOVE, BELOW, ABOVE, BELOW)) == ["in", "out", "in"]


def test_who_passes_beside_the_line_has_not_crossed_it() -> None:
    assert directions(DOOR, way(ABOVE, (0.95, 0.4), (0.95, 0.6), BELOW)) == []


def test_the_same_way_counts_once_until_the_track_comes_back() -> None:
    around = way(ABOVE, BELOW, (0.95, 0.6), (0.95, 0.4), ABOVE, BELOW)
    assert directions(DOOR, around) == ["in"]
    assert directions(DOOR, [*around, *way(BELOW, ABOVE)]) == ["in", "out"]


def test_who_was_missing_at_the_line_has_crossed_it() -> None:
    assert directions(DOOR, [ABOVE, None, None, None, BELOW]) == ["in"]


@given(st.lists(st.floats(-0.0199, 0.0199), max_size=50), st.lists(st.floats(-0.3, 0.3), min_size=50, max_size=50))
def test_who_trembles_on_the_line_counts_nothing(offsets: list[float], along: list[float]) -> None:
    feet: list[Point | None] = [(0.5 + x, 0.5 + y) for y, x in zip(offsets, along, strict=False)]
    assert directions(DOOR, feet) == []
    assert directions(DOOR, [ABOVE, *feet, ABOVE]) == []
    assert directions(DOOR, [ABOVE, *feet, BELOW]) == ["in"]


@given(st.integers(0, 2**32 - 1))
def test_who_trembles_while_crossing_counts_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    feet = [(foot[0], foot[1] + float(rng.uniform(-0.009, 0.009))) for foot in way(ABOVE, BELOW, steps=200) if foot]
    assert directions(DOOR, [*feet]) == ["in"]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40),
    st.sampled_from([(400, 300), (1600, 1200), (1920, 300)]),
)
def test_what_is_told_does_not_depend_on_the_resolution(feet: list[Point], size: tuple[int, int]) -> None:
    """The feet keep off the margin, where the last bit of a number may decide."""
    clear: list[Point | None] = [foot for foot in feet if abs(abs(foot[1] - 0.5) - DOOR.margin) > 1e-6]
    told = directions(DOOR, clear)
    assert directions(DOOR, clear, size) == told
    assert all(one != other for one, other in pairwise(told))


def test_tracks_are_counted_each_for_itself_and_by_label() -> None:
    lines = Lines(
        [msgspec.structs.replace(DOOR, labels=("car", "person")), msgspec.structs.replace(DOOR, name="other")]
    )
    labels = {1: "person", 2: "car", 3: "dog"}
    lines.update(Sighting([track_at(ABOVE, 0.0, number, label) for number, label in labels.items()], 800, 600, 0.0))
    crossed = lines.update(
        Sighting([track_at(BELOW, 1.0, number, label) for number, label in labels.items()], 800, 600, 1.0)
    )
    assert [(event.line, event.track, event.label) for event in crossed] == [
        *[("door", 1, "person"), ("door", 2, "car")],
        *[("other", 1, "person"), ("other", 2, "car"), ("other", 3, "dog")],
    ]


def test_a_track_that_is_over_is_forgotten() -> None:
    lines = Lines([DOOR])
    lines.update(Sighting([track_at(ABOVE, 0.0)], 800, 600, 0.0))
    lines.update(Sighting([], 800, 600, 1.0))
    assert lines.update(Sighting([track_at(BELOW, 2.0)], 800, 600, 2.0)) == ()


@pytest.mark.parametrize("line", [((0.2, 0.2), (0.8, 0.8)), ((0.8, 0.8), (0.2, 0.2)), ((0.5, 0.1), (0.5, 0.9))])
def test_lines_may_lie_as_they_like(line: tuple[Point, Point]) -> None:
    slanted = LineConfig("slanted", *line)
    there, back = (0.7, 0.3), (0.3, 0.7)
    assert directions(slanted, way(there, back, there)) in (["in", "out"], ["out", "in"])
    assert directions(slanted, way(there, back)) != directions(slanted, way(back, there))
