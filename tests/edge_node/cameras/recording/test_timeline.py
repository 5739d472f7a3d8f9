"""A player can follow whatever times a camera sends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.recording.timeline import LONGEST_DELAY_S, Stamp, Timeline

BASE = Fraction(1, 90_000)
FRAME = 3600
TICKS = st.one_of(st.none(), st.integers(-(1 << 62), 1 << 62), st.integers(0, 1 << 20))
TIMES = st.one_of(st.floats(-1e12, 1e12), st.floats(1.8e9, 1.8e9 + 100))


@given(
    st.lists(st.tuples(TICKS, TICKS, TIMES), min_size=1, max_size=60),
    st.sampled_from([BASE, Fraction(1, 25), Fraction(1, 12_800), Fraction(1, 1_000_000), Fraction(1001, 30_000)]),
    st.booleans(),
)
def test_any_times_become_times_that_rise_from_zero(
    sent: list[tuple[int | None, int | None, float]], base: Fraction, by_clock: bool
) -> None:
    timeline = Timeline(base, by_clock=by_clock)
    stamps = [timeline.next(*each) for each in sent]
    decoded = [stamp.dts for stamp in stamps]
    assert decoded[0] == 0
    assert decoded == sorted(set(decoded))
    for stamp in stamps:
        assert 0 <= (stamp.pts - stamp.dts) * base <= LONGEST_DELAY_S
    steps = [(after - before) * base for before, after in itertools.pairwise(decoded)]
    assert max(steps, default=0) <= 61


@given(st.integers(-(1 << 40), 1 << 40), st.lists(st.integers(1, 80_000), min_size=1, max_size=50))
def test_right_times_are_kept_to_the_tick(begin: int, steps: list[int]) -> None:
    timeline = Timeline(BASE)
    at = begin
    stamps = [timeline.next(at + 2 * FRAME, at, 1.8e9)]
    for step in steps:
        at += step
        stamps.append(timeline.next(at + 2 * FRAME, at, 1.8e9))
    assert stamps[-1].dts == at - begin
    assert all(stamp.pts - stamp.dts == 2 * FRAME for stamp in stamps)


def followed(timeline: Timeline, sent: Sequence[tuple[int | None, int | None, float]]) -> list[Stamp]:
    return [timeline.next(*each) for each in sent]


def test_pictures_without_times_are_as_far_apart_as_they_came() -> None:
    stamps = followed(Timeline(BASE), [(None, None, at) for at in (100.0, 100.2, 100.5)])
    assert [stamp.dts for stamp in stamps] == [0, 18_000, 45_000]


def test_times_that_somebody_made_up_are_not_asked() -> None:
    """MJPEG over HTTP at 5 pictures a second, to which FFmpeg gives 25 a second."""
    sent = [(n * FRAME, n * FRAME, 100.0 + n / 5) for n in range(10)]
    assert followed(Timeline(BASE, by_clock=True), sent)[-1].dts == pytest.approx(9 * 18_000, abs=2)


def test_a_step_back_costs_as_much_time_as_passed() -> None:
    sent = [(0, 0, 100.0), (FRAME, FRAME, 100.04), (-(10**9), -(10**9), 100.1), (FRAME - 10**9, FRAME - 10**9, 100.14)]
    assert [stamp.dts for stamp in followed(Timeline(BASE), sent)] == [0, 3600, 9000, 12_600]


@pytest.mark.parametrize(("passed_s", "step"), [(9.5, 10 * 90_000), (0.1, 9_000)])
def test_a_long_step_is_believed_if_it_took_as_long(passed_s: float, step: int) -> None:
    sent = [(0, 0, 100.0), (10 * 90_000, 10 * 90_000, 100.0 + passed_s)]
    assert followed(Timeline(BASE), sent)[1].dts == step


def test_a_clock_that_leaps_does_not_stretch_pictures_without_times() -> None:
    sent: list[tuple[int | None, int | None, float]] = [(None, None, at) for at in (5.0, 5.04, 1.8e9, 1.8e9 + 0.04)]
    assert [stamp.dts for stamp in followed(Timeline(BASE), sent)] == [0, 3600, 7200, 10_800]
