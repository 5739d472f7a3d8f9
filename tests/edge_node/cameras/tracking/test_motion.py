"""The motion of tracks: in seconds, whatever the times of the pictures, and in sizes, whatever the pixels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.tracking import motion
from edge_node.cameras.tracking.motion import Floats, Motions

seeds = st.integers(0, 2**32 - 1)
times = st.floats(0, 10)


def drawn_boxes(rng: np.random.Generator, count: int) -> Floats:
    near = rng.uniform(0, 500, (count, 2))
    return np.concatenate([near, near + rng.uniform(5, 200, (count, 2))], axis=1)


def drawn(seed: int, count: int = 7) -> Motions:
    """Tracks that were found a few times, at irregular times."""
    rng = np.random.default_rng(seed)
    motions = motion.begun(drawn_boxes(rng, count))
    for _ in range(5):
        motions = motion.predicted(motions, rng.uniform(0.01, 0.5))
        rows = np.flatnonzero(rng.random(count) < 0.7)
        moved = motion.boxes_of(motions)[rows] + rng.normal(0, 5, (len(rows), 1))
        motions = motion.corrected(motions, rows, moved)
    return motions


def assert_same(one: Motions, other: Motions) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-6)


@given(seeds, times, times)
def test_two_steps_predict_what_one_does(seed: int, first_s: float, then_s: float) -> None:
    motions = drawn(seed)
    assert_same(
        motion.predicted(motion.predicted(motions, first_s), then_s), motion.predicted(motions, first_s + then_s)
    )


@given(seeds, times, st.floats(0.1, 10))
def test_a_picture_of_another_size_changes_nothing_but_the_pixels(seed: int, dt_s: float, factor: float) -> None:
    motions, rows = drawn(seed), np.array([0, 3, 5])
    boxes = motion.boxes_of(motions)[rows] + 3.0

    def moved(motions: Motions, boxes: Floats) -> Motions:
        return motion.corrected(motion.predicted(motions, dt_s), rows, boxes)

    scaled = motion.scaled(motions, factor, factor)
    assert_same(moved(scaled, boxes * factor), motion.scaled(moved(motions, boxes), factor, factor))


@given(seeds, st.floats(0, 3600))
def test_no_gap_turns_a_box_inside_out_or_makes_it_surer(seed: int, dt_s: float) -> None:
    motions = drawn(seed)
    later = motion.predicted(motions, dt_s)
    assert (motion.boxes_of(later)[:, 2:] > motion.boxes_of(later)[:, :2]).all()
    assert (motion.doubt_of(later) >= motion.doubt_of(motions)).all()


@given(seeds)
def test_a_detection_makes_its_track_surer_and_leaves_the_others_alone(seed: int) -> None:
    motions, rows, others = motion.predicted(drawn(seed), 0.1), np.array([1, 4]), np.array([0, 2, 3, 5, 6])
    found = motion.corrected(motions, rows, drawn_boxes(np.random.default_rng(seed), 2))
    assert (motion.doubt_of(found)[rows] < motion.doubt_of(motions)[rows]).all()
    assert (found.side_variance[rows] < motions.side_variance[rows]).all()
    assert (found.speed_variance > 0).all()
    assert_same(motion.kept(found, others), motion.kept(motions, others))


def test_a_speed_is_learned_from_irregular_pictures() -> None:
    rng, now_s = np.random.default_rng(3), 0.0
    motions = motion.begun(np.array([[0.0, 0.0, 40.0, 100.0]]))
    for dt_s in rng.uniform(0.02, 0.4, 20):
        now_s += dt_s
        motions = motion.predicted(motions, dt_s)
        box = np.array([[0.0, 0.0, 40.0, 100.0]]) + now_s * np.array([80.0, -20.0, 80.0, -20.0])
        motions = motion.corrected(motions, np.array([0]), box)
    assert motions.speeds[0] == pytest.approx([80.0, -20.0], rel=0.02)
    assert motions.sides[0] == pytest.approx([40.0, 100.0])


def test_fifty_tracks_take_well_under_a_millisecond() -> None:
    rng, rows = np.random.default_rng(0), np.arange(50)
    motions, boxes, taken_s = drawn(0, 50), drawn_boxes(rng, 50), []
    for _ in range(50):
        began_s = time.perf_counter()
        motion.boxes_of(motion.corrected(motion.predicted(motions, 0.1), rows, boxes))
        taken_s.append(time.perf_counter() - began_s)
    assert min(taken_s) < 1e-3
