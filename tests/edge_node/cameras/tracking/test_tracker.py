"""Tracks: ids that stay, and never come back."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.track import Box, Changes, Track
from edge_node.cameras.tracking.tracker import Tracker
from runtime.serving.models.found import Found
from tests.edge_node.cameras.tracking.walks import Detector, Walker, crowd, found, pictures

seeds = st.integers(0, 2**32 - 1)
STANDING: Box = (100.0, 100.0, 140.0, 200.0)


class Told(NamedTuple):
    at_s: float
    detections: int
    changes: Changes
    tracks: tuple[Track, ...]


def told(tracker: Tracker, seed: int, shuffled: bool = False) -> list[Told]:
    """Of ten seconds of a crowd, at irregular times."""
    rng, order = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    times = np.cumsum(rng.uniform(0.02, 0.6, 40))
    scenes = list(pictures(rng, crowd(rng, 12, 8), Detector(false=2.0), times))
    return [
        Told(at_s, len(now.boxes), tracker.update(mixed(now, order) if shuffled else now, at_s), tracker.tracks)
        for at_s, _, now in scenes
    ]


def mixed(now: Found, rng: np.random.Generator) -> Found:
    order = rng.permutation(len(now.boxes))
    return Found(now.boxes[order], now.scores[order], now.labels[order])


def standing(tracker: Tracker, until_s: float = 1.0) -> Track:
    """A tracker in which one thing has stood still, ten pictures a second."""
    for tick in range(round(until_s * 10) + 1):
        tracker.update(found(STANDING), tick / 10)
    (track,) = tracker.tracks
    return track


@given(seeds)
@settings(max_examples=40)
def test_ids_rise_and_no_id_comes_back(seed: int) -> None:
    everything = told(Tracker(TrackerConfig()), seed)
    started = [track.id for each in everything for track in each.changes.started]
    assert started == list(range(1, len(started) + 1))
    ended: set[int] = set()
    for each in everything:
        alive = {track.id for track in each.tracks}
        assert not ended & alive
        ended |= {track.id for track in each.changes.ended}
        assert not ended & alive
        assert alive | ended == set(range(1, max(alive | ended, default=0) + 1))


@given(seeds)
@settings(max_examples=40)
def test_a_detection_is_in_one_track_at_most_and_a_track_in_one_kind_of_change(seed: int) -> None:
    for each in told(Tracker(TrackerConfig()), seed):
        assert len(each.changes.started) + len(each.changes.updated) <= each.detections
        changed = [track.id for kind in each.changes for track in kind]
        assert len(changed) == len(set(changed))
        now = {track for kind in each.changes[:3] for track in kind}
        assert now <= set(each.tracks)
        assert {track.state for track in each.changes.updated} <= {"confirmed"}
        assert {track.state for track in each.changes.lost} <= {"lost"}
        assert {track.state for track in each.changes.ended} <= {"ended"}
        assert all(track.last_s == each.at_s for track in (*each.changes.started, *each.changes.updated))


@given(seeds)
@settings(max_examples=40)
def test_the_order_of_the_detections_does_not_matter(seed: int) -> None:
    assert told(Tracker(TrackerConfig()), seed) == told(Tracker(TrackerConfig()), seed, shuffled=True)


@given(st.floats(-120, 120), st.floats(-60, 60), st.lists(st.floats(0.02, 2.0), min_size=1, max_size=10))
def test_who_goes_on_steadily_keeps_the_id_over_gaps(speed_x: float, speed_y: float, gaps_s: list[float]) -> None:
    walker = Walker(1000, 1000, speed_x, speed_y, 100, sway=0, period_s=1, from_s=0, until_s=100)
    tracker, now_s = Tracker(TrackerConfig()), 0.0
    for gap_s in (0.0, 0.1, 0.1, 0.1, 0.1, 0.1, *gaps_s):
        now_s += gap_s
        changes = tracker.update(found(walker.box(now_s)), now_s)
        assert not changes.ended
    (track,) = tracker.tracks
    assert (track.id, track.hits, track.state) == (1, 6 + len(gaps_s), "confirmed")
    assert track.box == pytest.approx(walker.box(now_s), abs=2.0)


@given(st.floats(40, 120), st.floats(40, 120), st.floats(-5, 5), st.floats(0.05, 0.15))
def test_two_who_cross_keep_their_ids(speed: float, other: float, lower: float, every_s: float) -> None:
    middle_s = 300 / (speed + other)
    left = Walker(0, 200, speed, 0, 100, 0, 1, 0, 100)
    right = Walker(300, 200 + lower, -other, 0, 100, 0, 1, 0, 100)
    tracker, seen = Tracker(TrackerConfig()), []
    for tick in range(int(2 * middle_s / every_s)):
        now_s = tick * every_s
        tracker.update(found(left.box(now_s), right.box(now_s)), now_s)
        seen.append([track.id for track in sorted(tracker.tracks, key=lambda track: track.box)])
    assert sorted(seen[3]) == [1, 2]
    assert seen[-1] == seen[3][::-1]


def test_a_track_counts_once_it_was_found_often_enough_in_time() -> None:
    config = TrackerConfig(confirm_hits=3, confirm_within_s=1.0)
    quick, slow = Tracker(config), Tracker(config)
    assert [len(quick.update(found(STANDING), at_s).started) for at_s in (0.0, 0.5, 1.0)] == [0, 0, 1]
    assert [len(slow.update(found(STANDING), at_s).started) for at_s in (0.0, 0.6, 1.2, 1.4, 1.6)] == [0, 0, 0, 0, 1]
    assert len(Tracker(TrackerConfig(confirm_hits=1)).update(found(STANDING), 0.0).started) == 1


def test_what_does_not_count_is_never_told() -> None:
    tracker = Tracker(TrackerConfig())
    assert tracker.update(found(STANDING), 0.0) == Changes()
    assert tracker.tracks == ()
    assert tracker.tick(100.0) == Changes()
    assert tracker.next_id == 1


def test_a_weak_detection_begins_nothing_and_keeps_what_there_is() -> None:
    tracker = Tracker(TrackerConfig())
    for tick in range(10):
        tracker.update(found(STANDING, score=0.55), tick / 10)
    assert tracker.tracks == ()
    standing(tracker := Tracker(TrackerConfig()))
    for second in range(2, 20):
        assert [track.id for track in tracker.update(found(STANDING, score=0.15), float(second)).updated] == [1]


def test_a_track_coasts_is_lost_and_ends() -> None:
    tracker = Tracker(TrackerConfig(coast_s=0.5, lost_after_s=2.0))
    standing(tracker)
    assert tracker.update(Found.nothing(), 1.4) == Changes()
    (lost,) = tracker.update(Found.nothing(), 1.5).lost
    assert (lost.id, lost.state, lost.last_s, lost.broken) == (1, "lost", 1.0, False)
    assert tracker.update(Found.nothing(), 3.0) == Changes()
    (ended,) = tracker.update(Found.nothing(), 3.1).ended
    assert (ended.id, ended.state, ended.first_s, ended.last_s) == (1, "ended", 0.0, 1.0)
    assert tracker.tracks == ()


def test_who_is_found_again_is_the_same_and_broken() -> None:
    tracker = Tracker(TrackerConfig())
    standing(tracker)
    tracker.update(Found.nothing(), 2.0)
    (again,) = tracker.update(found(STANDING), 3.0).updated
    assert (again.id, again.state, again.broken) == (1, "confirmed", True)


def test_time_without_pictures_ends_tracks_and_time_in_which_nothing_moves_does_not() -> None:
    tracker = Tracker(TrackerConfig())
    before = standing(tracker)
    for tick in range(1, 1000):
        assert tracker.tick(1.0 + 3.6 * tick, still=True) == Changes()
    assert tracker.tracks == (msgspec.structs.replace(before, last_s=1.0 + 3.6 * 999),)
    assert [track.id for track in tracker.update(found(STANDING), 3598.0).updated] == [1]
    assert [track.id for track in tracker.tick(3598.6).lost] == [1]
    assert [track.id for track in tracker.tick(3600.1).ended] == [1]


def test_what_was_missing_when_all_stood_still_has_as_long_left_as_before() -> None:
    tracker = Tracker(TrackerConfig())
    standing(tracker)
    tracker.update(Found.nothing(), 2.5)
    tracker.tick(100.0, still=True)
    (track,) = tracker.tracks
    assert (track.state, track.last_s) == ("lost", 1.0)
    assert tracker.tick(100.4) == Changes()
    assert len(tracker.tick(100.6).ended) == 1


@given(seeds, st.integers(1, 39), st.integers(1, 500))
@settings(max_examples=30)
def test_a_still_time_in_between_changes_nothing_but_the_clock(seed: int, at: int, stood_s: int) -> None:
    """Compared in whole quarters of seconds, whose sums are exact."""
    rng, straight, paused = np.random.default_rng(seed), Tracker(TrackerConfig()), Tracker(TrackerConfig())
    scenes = list(pictures(rng, crowd(rng, 12, 8), Detector(), np.arange(40) / 4))
    for number, (at_s, _, now) in enumerate(scenes):
        if number == at:
            paused.tick(scenes[at - 1][0] + stood_s, still=True)
        later_s = stood_s if number >= at else 0
        wanted, got = straight.update(now, at_s), paused.update(now, at_s + later_s)
        assert [[timeless(track) for track in kind] for kind in got] == [
            [timeless(track) for track in kind] for kind in wanted
        ]


def timeless(track: Track) -> Track:
    return msgspec.structs.replace(track, first_s=0.0, last_s=0.0)


@given(seeds, st.sampled_from([(1536, 1152), (384, 288), (768, 288)]))
@settings(max_examples=30)
def test_another_resolution_in_mid_stream_breaks_no_track(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    scale = np.array([size[0] / 768, size[1] / 576] * 2)
    scenes = list(pictures(rng, crowd(rng, 4, 3, together=0.0), Detector(missed=0, weak=0, false=0), np.arange(40) / 8))
    fixed, changed = Tracker(TrackerConfig()), Tracker(TrackerConfig())
    changed.resized(768, 576)
    for number, (at_s, _, now) in enumerate(scenes):
        if number == 20:
            changed.resized(*size)
        other = now if number < 20 else now._replace(boxes=(now.boxes * scale).astype(np.float32))
        fixed.update(now, at_s)
        changed.update(other, at_s)
        factor = scale if number >= 20 else 1.0
        assert [track.id for track in changed.tracks] == [track.id for track in fixed.tracks]
        for one, two in zip(fixed.tracks, changed.tracks, strict=True):
            assert np.array(two.box) == pytest.approx(np.array(one.box) * factor, rel=1e-3, abs=0.1)


def test_labels_are_named_and_those_without_a_name_are_numbers() -> None:
    named, unnamed = Tracker(TrackerConfig(), ["person", "car"]), Tracker(TrackerConfig(), ["person"])
    for tick in range(3):
        for tracker in (named, unnamed):
            tracker.update(found(STANDING, label=1), float(tick) / 2)
    assert [tracker.tracks[0].label for tracker in (named, unnamed)] == ["car", "1"]


def test_a_label_that_wavers_breaks_a_track_that_may_have_several() -> None:
    tracker = Tracker(TrackerConfig(class_agnostic=True), ["car", "lorry"])
    for tick in range(9):
        tracker.update(found(STANDING, label=tick % 3 // 2), tick / 10)
    (track,) = tracker.tracks
    assert (track.label, track.broken) == ("car", True)


def test_boxes_that_are_none_are_passed_over() -> None:
    strange = found((10, 10, 10, 50), (10, 50, 40, 10), (math.nan, 0, 10, 10), (0, 0, math.inf, 10), STANDING)
    tracker = Tracker(TrackerConfig())
    for tick in range(3):
        tracker.update(strange, tick / 10)
    assert [track.box for track in tracker.tracks] == [pytest.approx(STANDING)]


@pytest.mark.parametrize("at_s", [0.9, math.nan, math.inf, -math.inf])
def test_a_clock_that_goes_back_is_refused(at_s: float) -> None:
    tracker = Tracker(TrackerConfig())
    standing(tracker)
    with pytest.raises(ValueError, match="begin a new tracker"):
        tracker.update(found(), at_s)
    for still in (False, True):
        with pytest.raises(ValueError, match="begin a new tracker"):
            tracker.tick(at_s, still)
    assert [track.id for track in tracker.update(found(STANDING), 1.1).updated] == [1]


def test_a_tracker_that_takes_the_place_of_another_goes_on_counting() -> None:
    tracker = Tracker(TrackerConfig())
    standing(tracker)
    assert standing(Tracker(TrackerConfig(), first_id=tracker.next_id)).id == 2


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_scores_of_a_config_rise(low: float, high: float, begin: float) -> None:
    asked = {"low_score": low, "high_score": high, "begin_score": begin}
    if low <= high <= begin:
        assert msgspec.convert(asked, TrackerConfig).begin_score == begin
    else:
        with pytest.raises(msgspec.ValidationError, match="do not rise"):
            msgspec.convert(asked, TrackerConfig)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_track_cannot_be_over_before_it_is_lost(coast_s: float, lost_after_s: float) -> None:
    assume(coast_s > lost_after_s)
    with pytest.raises(msgspec.ValidationError, match="Lower coast_s"):
        msgspec.convert({"coast_s": coast_s, "lost_after_s": lost_after_s}, TrackerConfig)
