"""A rate gives out what it promises in any stretch of time, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.rates import Rate


@given(
    st.floats(0.1, 100.0),
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200),
)
def test_never_more_than_the_rate_and_one_second_of_it_in_advance(per_s: float, gaps_s: list[float]) -> None:
    rate, now_s = Rate(per_s), 0.0
    taken: list[float] = []
    for gap_s in gaps_s:
        now_s += gap_s
        wait_s = rate.take(now_s)
        if wait_s == 0.0:
            taken.append(now_s)
        else:
            assert rate.take(now_s) == wait_s
    for first, begun_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= per_s * (taken[last] - begun_s) + max(per_s, 1.0) + 1e-6


def test_it_says_truly_when_there_will_be_another() -> None:
    rate = Rate(4.0)
    assert [rate.take(10.0) for _ in range(5)][:4] == [0.0] * 4
    wait_s = rate.take(10.0)
    assert wait_s == pytest.approx(0.25)
    assert rate.take(10.0 + wait_s) == 0.0


def test_a_slow_rate_gives_one_at_once() -> None:
    rate = Rate(0.1)
    assert rate.take(0.0) == 0.0
    assert rate.take(0.0) == pytest.approx(10.0)


@pytest.mark.parametrize("per_s", [0.0, -1.0])
def test_never_is_no_rate(per_s: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rate(per_s)
