"""What nodes have counted is booked once, however often and in whatever order it is told."""

from __future__ import annotations

import functools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.judging.quality import EDGES_MS, Book, Counts

small = st.integers(0, 50)


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    requests, answers, samples = draw(small), draw(small), draw(small)
    width = draw(st.integers(0, 5))
    latency: list[int] = []
    for _ in range(width):
        latency.append(draw(st.integers(0, answers - sum(latency))))
    return Counts(
        requests=requests,
        failed=draw(st.integers(0, requests)),
        answers=answers,
        doubtful=draw(st.integers(0, answers)),
        samples=samples,
        strained=draw(st.integers(0, samples)),
        latency=tuple(latency),
    )


def total(booked: list[Counts | None]) -> Counts:
    return functools.reduce(Counts.plus, [one for one in booked if one is not None], Counts())


def same(one: Counts, other: Counts) -> bool:
    return one.plus(Counts(latency=(0,) * 6)) == other.plus(Counts(latency=(0,) * 6))


@given(st.lists(counts(), min_size=1, max_size=8), st.data())
def test_totals_are_booked_once_whatever_is_lost_repeated_or_late(steps: list[Counts], data: st.DataObject) -> None:
    totals = [functools.reduce(Counts.plus, steps[: end + 1]) for end in range(len(steps))]
    told = data.draw(st.lists(st.integers(0, len(steps) - 1), min_size=1, max_size=20))
    book = Book()
    booked = total([book.take("n", 1, "d", totals[index]) for index in told])
    assert same(booked, totals[max(told)])


@given(st.lists(counts(), min_size=1, max_size=6), st.data())
def test_each_life_of_a_node_counts_from_nothing(lives: list[Counts], data: st.DataObject) -> None:
    told = data.draw(st.lists(st.integers(0, len(lives) - 1), max_size=20))
    heard = [life for index, life in enumerate(told) if life >= max(told[: index + 1])]
    book = Book()
    booked = total([book.take("n", life, "d", lives[life]) for life in told])
    assert same(booked, total([lives[life] for life in sorted({*heard})]))


def test_versions_and_nodes_are_told_apart() -> None:
    book, once = Book(), Counts(requests=3)
    told = [(node, digest) for node in "ab" for digest in "xy"]
    assert [book.take(node, 1, digest, once) for node, digest in told] == [once] * 4


def test_what_is_forgotten_begins_anew() -> None:
    book, once = Book(), Counts(requests=3)
    assert [book.take("a", 1, digest, once) for digest in "xy"] == [once, once]
    book.forget("x")
    assert [book.take("a", 1, digest, once) for digest in "xy"] == [once, None]


def test_slow_answers_are_those_above_an_edge() -> None:
    told = Counts(answers=10, latency=(1, 2, 3, 4))
    assert [told.slower_than(edge) for edge in range(5)] == [9, 7, 4, 0, 0]
    assert len(EDGES_MS) == 40
    assert EDGES_MS[0] == 0.5
    assert 300_000 < EDGES_MS[-1] < 400_000


@pytest.mark.parametrize(
    "text",
    [
        '{"requests": 1, "failed": 2}',
        '{"answers": 1, "doubtful": 2}',
        '{"samples": 0, "strained": 1}',
        '{"answers": 1, "latency": [1, 1]}',
        '{"requests": -1}',
        '{"requests": 9007199254740992}',
        '{"answers": 50, "latency": [' + ",".join(["1"] * 42) + "]}",
    ],
)
def test_counts_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Counts)
