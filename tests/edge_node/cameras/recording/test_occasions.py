"""What asks for a clip, how often, and what then says where it is."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.camera_events import (
    CameraMessage,
    CountsMessage,
    CrossingEvent,
    PictureEvent,
    RuleEvent,
    StateMessage,
    TrackEvent,
)
from edge_node.cameras.recording.config import CameraRecordingConfig
from edge_node.cameras.recording.occasions import Occasions, clip_path

COMMON: dict[str, Any] = {"node": "fra", "camera": "yard", "epoch": 1, "sequence": 1}


class Asked:
    """Occasions, and what they asked for: events and times. `grants`: whether clips will come."""

    def __init__(self, **config: Any) -> None:
        self.asked: list[tuple[str, float]] = []
        self.grants = True
        self.occasions = Occasions(self._want)
        self.occasions.choose("yard", CameraRecordingConfig(**config))

    def hears(self, message: CameraMessage) -> str:
        """The clip that the message then names."""
        return getattr(self.occasions.complete(message), "clip", "")

    def _want(self, camera: str, event: str, at_s: float) -> bool:
        assert camera == "yard"
        self.asked.append((event, at_s))
        return self.grants


def track(phase: Any, at_s: float, *, event: str = "t", label: str = "person") -> TrackEvent:
    place: dict[str, Any] = {"box": (0, 0, 1, 1), "size": (10, 10), "began_at_s": 0.0}
    return TrackEvent(**COMMON, **place, at_s=at_s, event=event, phase=phase, track=1, label=label, score=1.0)


def rule(phase: Any, at_s: float) -> RuleEvent:
    return RuleEvent(**COMMON, at_s=at_s, event="r", phase=phase, rule="loitering")


def test_a_track_that_goes_on_asks_again_each_second_and_names_its_clip_to_the_end() -> None:
    on = Asked()
    told = [on.hears(track("start", 10.0)), *(on.hears(track("update", 10.0 + n / 4)) for n in range(1, 13))]
    told += [on.hears(track("end", 15.0)), on.hears(track("amended", 20.0))]
    assert set(told) == {clip_path("yard", "t")}
    assert on.asked == [("t", 10.0), ("t", 11.0), ("t", 12.0), ("t", 13.0)]


def test_a_rule_asks_when_it_begins_to_hold_and_when_it_ends() -> None:
    on = Asked(labels=("person",))
    assert on.hears(rule("start", 10.0)) == on.hears(rule("end", 10.5)) == "/v1/cameras/yard/clips/r"
    assert on.asked == [("r", 10.0), ("r", 10.5)]


def test_only_what_was_chosen_asks() -> None:
    on = Asked(events=("track",), labels=("person",))
    assert on.hears(rule("start", 1.0)) == on.hears(track("start", 1.0, label="cat")) == ""
    assert on.hears(PictureEvent(**COMMON, at_s=1.0, event="p", phase="start", label="person")) == ""
    assert on.asked == []
    assert on.hears(track("update", 2.0)) != ""


def test_a_crossing_gives_its_track_a_clip() -> None:
    on = Asked(events=("crossing",))
    assert on.hears(track("start", 1.0)) == ""
    crossing = CrossingEvent(**COMMON, at_s=2.0, event="t", line="gate", direction="in", track=1, label="person")
    assert on.hears(crossing) == on.hears(track("update", 9.0)) == clip_path("yard", "t")
    assert on.asked == [("t", 2.0)]


def test_what_was_refused_is_neither_asked_for_again_nor_named() -> None:
    on = Asked()
    on.grants = False
    assert on.hears(track("start", 1.0)) == ""
    on.grants = True
    assert on.hears(track("update", 5.0)) == on.hears(track("end", 6.0)) == ""
    assert len(on.asked) == 1


@pytest.mark.parametrize(
    "message",
    [
        StateMessage(**COMMON, at_s=1.0, state="live", since_at_s=1.0),
        CountsMessage(**COMMON, at_s=1.0),
    ],
    ids=["state", "counts"],
)
def test_states_and_counts_are_no_occasions(message: CameraMessage) -> None:
    assert Asked().occasions.complete(message) is message


def test_a_camera_that_is_not_recorded_asks_for_nothing() -> None:
    on = Asked()
    on.occasions.forget("yard")
    assert on.hears(track("start", 1.0)) == ""
    assert on.asked == []
