"""The motion gate: what stands still costs nothing, and nothing that moves is missed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.cameras.gate import MotionConfig, MotionGate
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size

NEVER = MotionConfig(refresh_s=0.0, hold_s=0.0)
WIDTH, HEIGHT = 640, 360
SCENE = np.random.default_rng(1).integers(40, 200, (HEIGHT // 20, WIDTH // 20)).repeat(20, 0).repeat(20, 1)


def scene(rng: np.random.Generator, noise: float, at: tuple[int, int] | None = None, side: int = 24) -> Array:
    """What a camera of that noise sees: always the same, but for a square at that place."""
    seen = SCENE.astype(np.float64)
    if at is not None:
        left, top = at
        there = seen[top : top + side, left : left + side]
        seen[top : top + side, left : left + side] = np.where(there < 128, there + 90, there - 90)
    return np.clip(seen + rng.normal(0.0, noise, seen.shape), 0, 255).astype(np.uint8)


def everything(size: Size) -> None:
    return None


@pytest.mark.parametrize("noise", [0.0, 3.0, 10.0, 30.0])
def test_noise_is_no_motion_and_a_small_thing_that_comes_is(noise: float) -> None:
    rng, gate = np.random.default_rng(2), MotionGate(NEVER, everything)
    verdicts = [gate.look(scene(rng, noise), number / 10) for number in range(100)]
    assert verdicts[0] == "moved"
    assert verdicts.count("still") >= 98
    assert gate.look(scene(rng, noise, (300, 100)), 10.0) == "moved"
    assert gate.look(scene(rng, noise, (300, 100)), 10.1) == "still"
    assert gate.look(scene(rng, noise), 10.2) == "moved"


def test_what_moves_slowly_passes_again_and_again() -> None:
    rng, gate = np.random.default_rng(3), MotionGate(NEVER, everything)
    for number in range(20):
        gate.look(scene(rng, 3.0, (100, 100)), number / 10)
    verdicts = [gate.look(scene(rng, 3.0, (100 + number // 8, 100)), 2.0 + number / 10) for number in range(400)]
    passed = [number for number, verdict in enumerate(verdicts) if verdict == "moved"]
    assert 5 <= len(passed) <= 100
    assert np.diff(passed).max() <= 60


def test_after_a_motion_and_after_a_long_time_pictures_pass_anyway() -> None:
    rng, gate = np.random.default_rng(4), MotionGate(MotionConfig(hold_s=1.0, refresh_s=5.0), everything)
    verdicts = [gate.look(scene(rng, 2.0), number / 2) for number in range(20)]
    assert verdicts[:3] == ["moved", "held", "held"]
    assert [number / 2 for number, verdict in enumerate(verdicts) if verdict == "refresh"] == [6.0]


def test_motion_counts_where_it_is_watched_for() -> None:
    def left_half(size: Size) -> Array:
        mask = np.zeros((size.height, size.width), np.uint8)
        mask[:, : size.width // 2] = 255
        return mask

    rng, gate = np.random.default_rng(5), MotionGate(NEVER, left_half)
    assert [gate.look(scene(rng, 2.0), number / 10) for number in range(5)][1:] == ["still"] * 4
    assert gate.look(scene(rng, 2.0, (500, 100)), 1.0) == "still"
    assert gate.look(scene(rng, 2.0, (100, 100)), 1.1) == "moved"


def test_a_picture_of_another_size_begins_anew() -> None:
    gate = MotionGate(NEVER, everything)
    sizes = [(480, 640), (480, 640), (1080, 1920), (1080, 1920), (100, 64), (100, 64), (1, 1), (1, 1), (3000, 17)]
    verdicts = [gate.look(np.full(size, 100, np.uint8), float(at_s)) for at_s, size in enumerate(sizes)]
    assert verdicts == ["moved", "still"] * 4 + ["moved"]


def test_all_pass_where_there_is_no_gate() -> None:
    gate = MotionGate(msgspec.structs.replace(NEVER, enabled=False), everything)
    assert {gate.look(np.zeros((10, 10), np.uint8), 0.0) for _ in range(5)} == {"moved"}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, WIDTH - 40), st.integers(0, HEIGHT - 40), st.integers(16, 40))
def test_wherever_something_of_a_size_appears_it_is_seen(left: int, top: int, side: int) -> None:
    rng, gate = np.random.default_rng(6), MotionGate(NEVER, everything)
    for number in range(3):
        gate.look(scene(rng, 3.0), number / 10)
    assert gate.look(scene(rng, 3.0, (left, top), side), 1.0) == "moved"
