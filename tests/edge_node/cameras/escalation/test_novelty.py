"""Which pictures are unlike all others."""

from __future__ import annotations

import numpy as np
import pytest

from edge_node.cameras.escalation.novelty import Novelty

SHARE = 0.01


@pytest.mark.parametrize("shape", [(1, 32), (1, 32, 3, 3)])
def test_what_is_unlike_all_before_is_unusual_and_the_usual_is_so_seldom(shape: tuple[int, ...]) -> None:
    rng, novelty = np.random.default_rng(1), Novelty(SHARE)
    usual = [novelty.is_unusual(rng.normal(5.0, 2.0, shape).astype(np.float32)) for _ in range(4000)]
    assert not any(usual[:100])
    assert 0.5 * SHARE <= np.mean(usual[500:]) <= 2 * SHARE
    assert novelty.is_unusual(np.full(shape, 12.0, np.float32))


def test_features_on_scales_of_their_own_count_alike() -> None:
    rng, novelty = np.random.default_rng(1), Novelty(SHARE)
    scales = np.array([1e-3, 1.0, 1e4])
    for _ in range(1000):
        novelty.is_unusual(rng.normal(0.0, 1.0, (1, 3)) * scales)
    assert novelty.is_unusual(np.array([[8e-3, 0.0, 0.0]]))


def test_a_scene_that_has_changed_is_usual_after_a_while() -> None:
    rng, novelty = np.random.default_rng(1), Novelty(SHARE)
    for _ in range(1000):
        novelty.is_unusual(rng.normal(0.0, 1.0, (1, 8)))
    later = [novelty.is_unusual(rng.normal(4.0, 1.0, (1, 8))) for _ in range(6000)]
    assert any(later[:10])
    assert np.mean(later[-1000:]) <= 2 * SHARE


def test_what_is_no_number_is_unusual_and_not_learned_from() -> None:
    rng, novelty = np.random.default_rng(1), Novelty(SHARE)
    for _ in range(500):
        novelty.is_unusual(rng.normal(0.0, 1.0, (1, 8)))
    assert novelty.is_unusual(np.full((1, 8), np.nan))
    assert not novelty.is_unusual(np.zeros((1, 8)))
