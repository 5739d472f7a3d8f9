"""Gradient2: it shrinks while answers take longer than in the long run, comes back, and stays within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.gradient import Gradient2


def fed(limit: Gradient2, seconds: float, *, windows: int, in_flight: int, from_s: float) -> float:
    now_s = from_s
    for _ in range(windows):
        for _ in range(11):
            now_s += 0.01
            limit.observe(seconds, in_flight, now_s)
    return now_s


def test_it_shrinks_when_answers_slow_down_and_recovers() -> None:
    limit = Gradient2(200)
    now_s = fed(limit, 0.01, windows=50, in_flight=150, from_s=0.0)
    assert limit.limit == 200
    now_s = fed(limit, 0.1, windows=10, in_flight=200, from_s=now_s)
    low = limit.limit
    assert low < 100
    fed(limit, 0.01, windows=300, in_flight=200, from_s=now_s)
    assert limit.limit == 200


def test_it_is_left_alone_while_few_are_there() -> None:
    limit = Gradient2(200)
    now_s = fed(limit, 0.01, windows=20, in_flight=2, from_s=0.0)
    fed(limit, 1.0, windows=20, in_flight=2, from_s=now_s)
    assert limit.limit == 200


@given(st.integers(1, 300), st.lists(st.tuples(st.floats(0, 100), st.integers(0, 500)), max_size=60))
def test_it_stays_within_its_bounds(maximum: int, samples: list[tuple[float, int]]) -> None:
    limit = Gradient2(maximum)
    now_s = 0.0
    for seconds, in_flight in samples:
        now_s = fed(limit, seconds, windows=1, in_flight=in_flight, from_s=now_s)
        assert 1.0 <= limit.limit <= maximum
