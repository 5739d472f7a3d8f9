"""Made-up crowds of which the truth is known: how good the tracks are."""

from __future__ import annotations

import numpy as np
import pytest

from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.tracker import Tracker
from tests.edge_node.cameras.tracking.figures import Figures, figures
from tests.edge_node.cameras.tracking.walks import Detector, crowd, pictures

SECONDS = 30


def tracked(people: int, fps: float, seed: int, detector: Detector) -> Figures:
    """Over pictures at irregular times; a track that coasts is told, one that is lost is not."""
    rng, tracker, seen = np.random.default_rng(seed), Tracker(TrackerConfig()), []
    times = np.cumsum(rng.uniform(0.5, 1.5, int(SECONDS * fps)) / fps)
    for at_s, truth, now in pictures(rng, crowd(rng, people, SECONDS - 8), detector, times):
        tracker.update(now, at_s)
        seen.append((truth, {track.id: track.box for track in tracker.tracks if track.state == "confirmed"}))
    return figures(seen)


def mean(people: int, fps: float, detector: Detector) -> Figures:
    return Figures(*np.mean([tracked(people, fps, seed, detector) for seed in range(4)], axis=0).tolist())


def test_who_is_always_found_is_always_the_same() -> None:
    got = mean(8, 10, Detector(missed=0.0, weak=0.0, hidden=1.1, false=0.0))
    assert got.mota > 0.92
    assert got.idf1 > 0.95
    assert got.tracks == got.objects


@pytest.mark.parametrize(
    ("people", "fps", "mota", "idf1", "switches"),
    [
        (10, 10, 0.88, 0.90, 2),
        (25, 10, 0.86, 0.85, 6),
        (10, 25, 0.86, 0.90, 2),
        (10, 5, 0.80, 0.82, 3),
        (10, 2, 0.5, 0.6, 6),
    ],
)
def test_a_fifth_missed_and_some_found_where_nobody_is(
    people: int, fps: float, mota: float, idf1: float, switches: int
) -> None:
    got = mean(people, fps, Detector())
    assert got.mota > mota
    assert got.idf1 > idf1
    assert got.switches <= switches
    assert got.tracks < 1.2 * got.objects + 2


def test_noise_alone_is_hardly_ever_somebody() -> None:
    got = [tracked(1, 10, seed, Detector(missed=1.0, false=1.0)).tracks for seed in range(4)]
    assert sum(got) <= 4 * 4
