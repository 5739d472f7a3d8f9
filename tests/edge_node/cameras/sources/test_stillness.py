"""Pictures that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from edge_node.cameras.sources.stillness import Stillness

RNG = np.random.default_rng(1)


def noisy(level: int, spread: int = 4) -> np.ndarray:
    return RNG.integers(level - spread, level + spread, (240, 320), np.uint8)


def test_the_very_same_picture_is_frozen_after_a_while_and_not_one_with_noise() -> None:
    stillness, same = Stillness(10.0, 5.0), noisy(100)
    looks = [stillness.look(same, float(at_s)) for at_s in range(13)]
    assert looks == ["picture"] * 10 + ["frozen"] * 3
    assert stillness.look(noisy(100), 13.0) == "picture"
    assert all(stillness.look(noisy(100), 14.0 + at_s) == "picture" for at_s in range(30))


def test_black_is_dark_after_a_while_and_night_is_not() -> None:
    stillness = Stillness(10.0, 5.0)
    looks = [stillness.look(noisy(17, 2), float(at_s)) for at_s in range(7)]
    assert looks == ["picture"] * 5 + ["dark"] * 2
    lamp = noisy(17, 2)
    lamp[100:140, 100:140] = 200
    assert all(stillness.look(lamp, 7.0 + at_s) == "picture" for at_s in range(8))


def test_neither_is_looked_for_where_its_time_is_0() -> None:
    stillness, black = Stillness(0.0, 0.0), np.zeros((240, 320), np.uint8)
    assert all(stillness.look(black, float(at_s)) == "picture" for at_s in range(100))


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (15, 2000), (1080, 1920)])
def test_every_size_can_be_looked_at(shape: tuple[int, int]) -> None:
    assert Stillness(1.0, 1.0).look(np.full(shape, 128, np.uint8), 0.0) == "picture"
