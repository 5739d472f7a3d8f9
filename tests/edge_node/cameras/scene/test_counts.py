"""How many there are, and were."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.scene.config import LineConfig, SceneConfig, ZoneConfig
from edge_node.cameras.scene.counts import Counts, LineCount, ZoneCount
from edge_node.cameras.scene.events import Crossed, Direction, Entered, Left, SceneEvent

CONFIG = SceneConfig(
    zones=(ZoneConfig("yard", ((0, 0), (1, 0), (1, 1))), ZoneConfig("road", ((0, 0), (1, 1), (0, 1)))),
    lines=(LineConfig("door", (0.2, 0.5), (0.8, 0.5)),),
)


def entered(track: int, label: str = "person", zone: str = "yard") -> Entered:
    return Entered(zone, track, label, 1.0, 0.0)


def left(track: int, label: str = "person", zone: str = "yard") -> Left:
    return Left(zone, track, label, 2.0, 1.0)


def crossed(track: int, direction: Direction, label: str = "person") -> Crossed:
    return Crossed("door", track, label, direction, 1.0)


def test_who_is_there_by_zone_and_label() -> None:
    counts = Counts(CONFIG)
    counts.note([entered(1), entered(2), entered(3, "car"), left(1), entered(2, zone="road")])
    assert counts.zones() == (
        ZoneCount("yard", now={"car": 1, "person": 1}, entered={"car": 1, "person": 2}),
        ZoneCount("road", now={"person": 1}, entered={"person": 1}),
    )


def test_who_has_crossed_either_way() -> None:
    counts = Counts(CONFIG)
    counts.note([crossed(1, "in"), crossed(2, "in"), crossed(1, "out"), crossed(3, "out", "car")])
    assert counts.lines() == (LineCount("door", {"person": 2}, {"car": 1, "person": 1}),)


def test_a_new_day_forgets_totals_and_not_who_is_there() -> None:
    counts = Counts(CONFIG)
    counts.note([entered(1), crossed(1, "in")])
    counts.reset()
    assert counts.zones()[0] == ZoneCount("yard", now={"person": 1}, entered={})
    assert counts.lines() == (LineCount("door", {}, {}),)
    counts.note([left(1)])
    assert counts.zones()[0].now == {}


def test_in_json_a_line_has_in_and_out() -> None:
    counts = Counts(CONFIG)
    assert msgspec.json.encode(counts.lines()[0]) == b'{"line":"door","in":{},"out":{}}'


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["person", "car"]))))
def test_now_is_who_has_entered_and_not_left(moves: list[tuple[int, str]]) -> None:
    counts, there = Counts(CONFIG), set[tuple[int, str]]()
    for move in moves:
        event: SceneEvent = left(*move) if move in there else entered(*move)
        there ^= {move}
        counts.note([event])
        assert sum(counts.zones()[0].now.values()) == len(there)
