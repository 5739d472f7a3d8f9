"""What nodes have counted is booked once, however often and in whatever order it is told."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from contracts.quality import Counts
from fleet.judging.book import Told
from tests.contracts.test_quality import counts, same


class Book:
    def __init__(self) -> None:
        self.told = Told()
        self.new = Counts()

    def take(self, epoch: int, totals: Counts) -> None:
        after = self.told.then(epoch, totals)
        if after is not None:
            self.told, new = after
            self.new = self.new.plus(new)


@given(st.lists(counts(), min_size=1, max_size=8), st.data())
def test_totals_are_booked_once_whatever_is_lost_repeated_or_late(steps: list[Counts], data: st.DataObject) -> None:
    totals = [functools.reduce(Counts.plus, steps[: end + 1]) for end in range(len(steps))]
    order = data.draw(st.lists(st.integers(0, len(steps) - 1), min_size=1, max_size=20))
    book = Book()
    for index in order:
        book.take(1, totals[index])
    assert same(book.new, totals[max(order)])
    assert same(book.new, book.told.total)


@given(st.lists(counts(), min_size=1, max_size=6), st.data())
def test_each_life_of_a_node_counts_from_nothing(lives: list[Counts], data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.integers(0, len(lives) - 1), max_size=20))
    order = [life for life in drawn if lives[life].is_some]  # no node tells of nothing
    heard = {life for index, life in enumerate(order) if life >= max(order[: index + 1])}
    book = Book()
    for life in order:
        book.take(life, lives[life])
    assert same(book.new, functools.reduce(Counts.plus, [lives[life] for life in sorted(heard)], Counts()))
    assert same(book.new, book.told.total)
