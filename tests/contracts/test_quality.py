"""Counts add up and are taken from each other, and such as cannot be are refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.quality import EDGES_MS, Counts

small = st.integers(0, 50)


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    runs, judged, looks = draw(small), draw(small), draw(small)
    failed = draw(st.integers(0, runs))
    latency: list[int] = []
    for _ in range(draw(st.integers(0, 5))):
        latency.append(draw(st.integers(0, runs - failed - sum(latency))))
    return Counts(
        runs=runs,
        failed=failed,
        judged=judged,
        doubtful=draw(st.integers(0, judged)),
        looks=looks,
        strained=draw(st.integers(0, looks)),
        latency=tuple(latency),
    )


@given(counts(), counts())
def test_what_was_added_can_be_taken_away(one: Counts, other: Counts) -> None:
    both = one.plus(other)
    assert same(both, other.plus(one))
    left = both.minus(other)
    assert left is not None
    assert same(left, one)
    assert both.is_some == (one.is_some or other.is_some)


@given(counts(), counts())
def test_less_is_never_later(one: Counts, other: Counts) -> None:
    later = one.minus(other)
    assert later is None or same(later.plus(other), one)
    if one.runs < other.runs or sum(one.latency) < sum(other.latency):
        assert later is None


def same(one: Counts, other: Counts) -> bool:
    """But for empty buckets."""
    return one.plus(Counts(latency=(0,) * 6)) == other.plus(Counts(latency=(0,) * 6))


def test_slow_runs_are_those_above_an_edge() -> None:
    told = Counts(runs=10, latency=(1, 2, 3, 4))
    assert [told.slower_than(edge) for edge in range(5)] == [9, 7, 4, 0, 0]
    assert len(EDGES_MS) == 44
    assert EDGES_MS[0] == 0.0625
    assert 180_000 < EDGES_MS[-1] < 200_000


@pytest.mark.parametrize(
    "text",
    [
        '{"runs": 1, "failed": 2}',
        '{"judged": 1, "doubtful": 2}',
        '{"looks": 0, "strained": 1}',
        '{"runs": 1, "latency": [1, 1]}',
        '{"runs": 2, "failed": 1, "latency": [1, 1]}',
        '{"runs": -1}',
        '{"runs": 9007199254740992}',
        '{"runs": 50, "latency": [' + ",".join(["1"] * 46) + "]}",
    ],
)
def test_counts_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Counts)
