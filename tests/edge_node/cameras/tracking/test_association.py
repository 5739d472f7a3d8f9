"""Which detection belongs to which track."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.tracking.association import Seen, Standing, assigned, overlaps_of, paired
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.life import State
from edge_node.cameras.tracking.motion import Floats

seeds = st.integers(0, 2**32 - 1)
STATES: tuple[State, ...] = ("tentative", "confirmed", "lost")
BOX = np.array([[100.0, 100.0, 140.0, 200.0]])


def crowded(rng: np.random.Generator, count: int) -> Floats:
    """Boxes that overlap a lot."""
    near = rng.uniform(0, 60, (count, 2))
    return np.concatenate([near, near + rng.uniform(20, 60, (count, 2))], axis=1)


def standing(boxes: Floats, state: State = "confirmed", doubt: float = 0.0, label: int = 0) -> Standing:
    count = len(boxes)
    return Standing(boxes, np.full(count, doubt), np.full(count, label), [state] * count)


def seen(boxes: Floats, score: float = 0.9, label: int = 0) -> Seen:
    return Seen(boxes, np.full(len(boxes), score), np.full(len(boxes), label))


def plain_overlap(a: Floats, b: Floats) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    heights = max(a[3], b[3]) - min(a[1], b[1])
    return float(width * height / (areas - width * height) * height / heights)


@given(seeds, st.floats(0, 20))
def test_boxes_grow_by_as_much_on_every_side(seed: int, by: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, others = crowded(rng, 3), crowded(rng, 4)
    got = overlaps_of(boxes, np.full(3, by), others)
    out = np.array([-by, -by, by, by])
    for row, column in np.ndindex(3, 4):
        assert got[row, column] == pytest.approx(plain_overlap(boxes[row] + out, others[column] + out))


@given(seeds, st.integers(0, 5), st.integers(0, 5))
def test_the_largest_sum_of_overlaps_is_found(seed: int, rows: int, columns: int) -> None:
    overlaps = np.random.default_rng(seed).random((rows, columns))
    good = np.where(overlaps >= 0.4, overlaps, 0.0)
    wide = good if rows <= columns else good.T
    best = max(sum(wide[row, column] for row, column in enumerate(order)) for order in every_order(*wide.shape))
    pairs = assigned(overlaps, 0.4)
    assert overlaps[pairs].sum() == pytest.approx(best)
    assert (overlaps[pairs] >= 0.4).all()


def every_order(rows: int, columns: int) -> list[tuple[int, ...]]:
    return list(permutations(range(columns), rows))


@given(seeds, st.integers(0, 12), st.integers(0, 12), st.booleans())
def test_nothing_is_named_twice_and_all_that_is_named_may_be(
    seed: int, tracks: int, detections: int, agnostic: bool
) -> None:
    rng, config = np.random.default_rng(seed), TrackerConfig(class_agnostic=agnostic)
    there = Standing(
        crowded(rng, tracks),
        rng.uniform(0, 30, tracks),
        rng.integers(0, 2, tracks),
        rng.choice(STATES, tracks).tolist(),
    )
    now = Seen(crowded(rng, detections), rng.random(detections), rng.integers(0, 2, detections))
    rows, columns = paired(there, now, config)
    assert len(set(rows.tolist())) == len(rows) == len(set(columns.tolist()))
    assert (now.scores[columns] >= config.low_score).all()
    assert agnostic or (there.labels[rows] == now.labels[columns]).all()
    weak = now.scores[columns] < config.high_score
    assert {there.states[row] for row in rows[weak]} <= {"confirmed"}


@pytest.mark.parametrize(("state", "follows"), [("confirmed", 1), ("lost", 0), ("tentative", 0)])
def test_a_weak_detection_keeps_only_a_confirmed_track_alive(state: State, follows: int) -> None:
    assert len(paired(standing(BOX, state), seen(BOX, 0.2), TrackerConfig()).tracks) == follows
    assert len(paired(standing(BOX, state), seen(BOX, 0.05), TrackerConfig()).tracks) == 0


def test_a_sure_detection_goes_before_a_weak_one_that_fits_better() -> None:
    now = Seen(np.concatenate([BOX, BOX + 10.0]), np.array([0.3, 0.8]), np.zeros(2, np.int64))
    assert paired(standing(BOX), now, TrackerConfig()).detections.tolist() == [1]


def test_a_known_track_goes_before_a_tentative_one_that_fits_better() -> None:
    there = Standing(np.concatenate([BOX, BOX + 10.0]), np.zeros(2), np.zeros(2, np.int64), ["tentative", "confirmed"])
    assert paired(there, seen(BOX), TrackerConfig()).tracks.tolist() == [1]


def test_who_may_be_far_is_looked_for_further_away() -> None:
    """A step aside by the whole width: nothing overlaps but what is grown by the doubt."""
    aside = BOX + np.array([45.0, 0.0, 45.0, 0.0])
    assert len(paired(standing(BOX, "tentative", doubt=1.0), seen(aside), TrackerConfig()).tracks) == 0
    assert len(paired(standing(BOX, "tentative", doubt=60.0), seen(aside), TrackerConfig()).tracks) == 1


def test_another_label_is_another_thing_unless_told_otherwise() -> None:
    there, now = standing(BOX, label=2), seen(BOX, label=7)
    assert len(paired(there, now, TrackerConfig()).tracks) == 0
    assert len(paired(there, now, TrackerConfig(class_agnostic=True)).tracks) == 1
