"""From detections to what is said of tracks, zones, lines and rules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from contracts.camera_events import CameraMessage, CountsMessage, CrossingEvent, RuleEvent, TrackEvent, Verdict
from edge_node.cameras.feed import Feed
from edge_node.cameras.observers.tracks import Tracks
from edge_node.cameras.scene.config import SceneConfig
from edge_node.cameras.sources.shot import Shot, Still
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.pipelines import Looked
from runtime.serving.models.found import Found

WIDTH, HEIGHT = 400, 200
LABELS = ("person", "car")
SCENE: dict[str, Any] = {
    "zones": [{"name": "left", "polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "dwell_s": 0.2}],
    "lines": [{"name": "gate", "start": [0.75, 0], "end": [0.75, 1]}],
    "rules": [{"name": "loiters", "zone": "left", "labels": ["person"], "for_s": 1.0}],
    "masks": [{"name": "tree", "polygon": [[0, 0], [1, 0], [1, 0.2], [0, 0.2]]}],
}


class Walk:
    """A camera at ten pictures a second, whose detector finds what the test says."""

    def __init__(self, scene: dict[str, Any] | None = None, update_every_s: float = 1.0) -> None:
        self.feed = Feed("fra", 1)
        self.heard: list[CameraMessage] = []
        self.feed.listeners.append(lambda said: self.heard.append(said.message))
        self.at_s = 1000.0
        self.boxes: Sequence[tuple[float, float]] = ()
        self.score = 0.9
        numbers = count(1)
        self.tracks = Tracks(
            TrackerConfig(),
            msgspec.convert(scene or {}, SceneConfig),
            LABELS,
            find=lambda looked, size: self._found(),
            sure=lambda score: score,
            say=lambda kind, at_s, **told: self.feed.say(kind, "door", at_s, **told),
            event_id=lambda: f"e{next(numbers)}",
            snapshot_of=lambda kind, event: "",
            update_every_s=update_every_s,
        )

    def step(self, *feet: tuple[float, float]) -> None:
        """A picture with a person at each of these places."""
        self.boxes, self.at_s = feet, self.at_s + 0.1
        shot = cast(Shot, Still(np.zeros((HEIGHT, WIDTH, 3), np.uint8), self.at_s, 1))
        self.tracks.saw(shot, cast(Looked, None))

    def rest(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.at_s += 0.1
            self.tracks.rested(self.at_s)

    def told(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.heard if type(message) is kind]

    def _found(self) -> Found:
        boxes = [(x - 10, y - 40, x + 10, y) for x, y in self.boxes]
        return Found(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.full(len(boxes), self.score, np.float32),
            np.zeros(len(boxes), np.int32),
        )


def test_a_track_begins_goes_on_and_ends_under_one_event() -> None:
    walk = Walk()
    for number in range(35):
        walk.step((50.0 + 3 * number, 150.0))
    for _ in range(25):
        walk.step()
    told = walk.told(TrackEvent)
    assert [message.phase for message in told] == ["start", "update", "update", "update", "end"]
    assert {(message.event, message.track, message.label, message.camera) for message in told} == {
        ("e1", 1, "person", "door")
    }
    assert told[0].began_at_s == pytest.approx(1000.1)
    assert told[0].size == (WIDTH, HEIGHT)
    assert all(0 <= message.box[0] < message.box[2] <= WIDTH for message in told)
    assert [message.sequence for message in told] == sorted({message.sequence for message in told})


def test_who_is_gone_is_told_with_the_best_score_and_not_the_last_weak_one() -> None:
    walk = Walk(update_every_s=0.0)
    for score in (0.7, 0.7, 0.7, 0.95, 0.6, 0.2):
        walk.score = score
        walk.step((50.0, 150.0))
    walk.tracks.passed(walk.at_s + 10.0)
    told = [(message.phase, message.score) for message in walk.told(TrackEvent)]
    assert told == [("start", 0.7), *(("update", score) for score in (0.95, 0.6, 0.2)), ("end", 0.95)]


def test_who_stands_still_behind_the_gate_is_not_gone() -> None:
    walk = Walk()
    for _ in range(5):
        walk.step((50.0, 150.0))
    walk.rest(60.0)
    walk.step((50.0, 150.0))
    assert [message.phase for message in walk.told(TrackEvent)] == ["start", "update"]
    walk.tracks.passed(walk.at_s + 10.0)
    assert walk.told(TrackEvent)[-1].phase == "end"


def test_zones_lines_counts_and_rules_are_told_with_the_events_of_their_tracks() -> None:
    walk = Walk(SCENE)
    for _ in range(20):
        walk.step((100.0, 150.0))
    for number in range(30):
        walk.step((100.0 + 9 * number, 150.0))
    (began, ended), (crossed,) = walk.told(RuleEvent), walk.told(CrossingEvent)
    assert (began.phase, began.rule, began.zone, began.tracks) == ("start", "loiters", "left", ("e1",))
    assert (ended.phase, ended.event) == ("end", began.event)
    assert (crossed.line, crossed.direction, crossed.event) == ("gate", "out", "e1")
    zones = [message.zones for message in walk.told(TrackEvent)]
    assert zones[1] == ("left",)
    assert zones[-1] == ()
    counts = walk.told(CountsMessage)
    assert [message.zones for message in counts[:2]] == [{"left": {}}, {"left": {"person": 1}}]
    assert (counts[-1].zones, counts[-1].lines) == ({"left": {}}, {"gate": {"in": 0, "out": 1}})
    assert [said.kind for said in walk.feed.standing] == ["counts"]


def test_what_a_mask_hides_is_no_track() -> None:
    walk = Walk(SCENE)
    for _ in range(10):
        walk.step((100.0, 39.0), (300.0, 150.0))
    assert {message.track for message in walk.told(TrackEvent)} == {1}
    assert walk.told(TrackEvent)[0].box[0] == pytest.approx(290.0, abs=2.0)


def test_a_clock_that_goes_back_ends_what_was_and_numbers_go_on() -> None:
    walk = Walk()
    for _ in range(5):
        walk.step((50.0, 150.0))
    walk.at_s -= 1.0
    walk.step((50.0, 150.0))
    walk.at_s -= 3600.0
    for _ in range(5):
        walk.step((50.0, 150.0))
    told = walk.told(TrackEvent)
    assert [(message.phase, message.track) for message in told] == [("start", 1), ("end", 1), ("start", 2)]
    assert len({message.event for message in told}) == 2


def test_all_that_goes_on_ends_with_the_camera_once() -> None:
    walk = Walk()
    for _ in range(5):
        walk.step((50.0, 150.0), (300.0, 150.0))
    walk.tracks.end(walk.at_s)
    walk.tracks.end(walk.at_s)
    assert sorted((message.phase, message.track) for message in walk.told(TrackEvent)) == [
        ("end", 1), ("end", 2), ("start", 1), ("start", 2),
    ]  # fmt: skip


def test_a_rule_that_holds_ends_with_the_camera_and_zones_are_empty_then() -> None:
    walk = Walk(SCENE)
    for _ in range(20):
        walk.step((100.0, 150.0))
    assert [message.phase for message in walk.told(RuleEvent)] == ["start"]
    walk.tracks.end(walk.at_s)
    began, ended = walk.told(RuleEvent)
    assert (ended.phase, ended.event) == ("end", began.event)
    assert walk.told(CountsMessage)[-1].zones == {"left": {}}
    assert walk.told(TrackEvent)[-1].zones == ()


def test_a_clock_that_is_set_back_ends_rules_once_and_loses_no_count() -> None:
    walk = Walk({**SCENE, "rules": [{**SCENE["rules"][0], "cooldown_s": 5.0}]})
    for round_ in range(1, 3):
        for number in range(32):
            walk.step((380.0 - 9 * number, 150.0))
        for _ in range(20):
            walk.step((101.0, 150.0))
        assert walk.told(CountsMessage)[-1].lines["gate"]["in"] == round_
        assert len([message for message in walk.told(RuleEvent) if message.phase == "start"]) == round_
        walk.at_s -= 3600.0
        for _ in range(30):
            walk.step()
    told = [(message.phase, message.event) for message in walk.told(RuleEvent)]
    assert [phase for phase, _ in told] == ["start", "end"] * 2
    assert len({event for _, event in told}) == 2


def test_what_the_cloud_has_named_goes_by_its_word() -> None:
    walk = Walk(update_every_s=0.0)
    for _ in range(5):
        walk.step((50.0, 150.0))
    event = walk.told(TrackEvent)[0].event
    for verdict, label in ((Verdict(tier="cloud", reason="below", edge_label="person"), "cyclist"), (Verdict(), "")):
        walk.tracks.judged(event, verdict, label)
        walk.step((50.0, 150.0))
        told = walk.told(TrackEvent)[-1]
        assert (told.label, told.verdict.tier, told.verdict.edge_label) == ("cyclist", "cloud", "person")
    walk.tracks.judged(event, Verdict(tier="cloud"), "person")
    walk.step((50.0, 150.0))
    assert walk.told(TrackEvent)[-1].label == "person"


def test_marks_show_where_each_is() -> None:
    walk = Walk()
    for _ in range(5):
        walk.step((50.0, 150.0))
    (mark,) = walk.tracks.marks()
    assert (mark.text, mark.number) == ("person 1", 1)
    assert mark.box is not None
    assert mark.box == pytest.approx((40.0, 110.0, 60.0, 150.0), abs=1.0)
