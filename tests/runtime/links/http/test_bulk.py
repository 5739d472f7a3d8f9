"""The place of a body: all of its bytes, however they come, and no more memory than they ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.links.http.bulk import Bulk

SCRATCH = memoryview(bytearray(1 << 16))


def fill(bulk: Bulk, data: bytes) -> None:
    room = bulk.room()
    room[: len(data)] = data
    bulk.fill(len(data))


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=300_000), st.data())
def test_a_body_is_whole_however_it_comes(first: bytes, rest: bytes, data: st.DataObject) -> None:
    bulk, sent = Bulk(first, len(rest), SCRATCH, wanted=True), 0
    while bulk.left:
        most = min(len(bulk.room()), len(rest) - sent)
        taken = data.draw(st.integers(1, most))
        fill(bulk, rest[sent : sent + taken])
        sent += taken
        assert bulk.left == len(rest) - sent
    assert bulk.body == first + rest


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=3000), st.data())
def test_behind_its_head_it_is_the_same(head: bytes, rest: bytes, data: st.DataObject) -> None:
    whole, place = head + rest, bytearray(len(head + rest))
    filled = data.draw(st.integers(len(head), len(whole)))
    place[:filled] = whole[:filled]
    bulk = Bulk.behind_head(place, len(head), filled, SCRATCH)
    assert bulk.peek(10) == whole[len(head) : filled][:10]
    while bulk.left:
        taken = data.draw(st.integers(1, bulk.left))
        at = len(whole) - bulk.left
        fill(bulk, whole[at : at + taken])
    assert bulk.body == rest


def test_memory_grows_with_what_has_come_and_not_with_what_was_declared() -> None:
    bulk = Bulk(b"x", 1 << 30, SCRATCH, wanted=True)
    come = 1
    while come < 1 << 24:
        room = len(bulk.room())
        assert come + room <= max(1 << 16, 4 * come)
        fill(bulk, bytes(room))
        come += room


@pytest.mark.parametrize("when", ["before", "within"])
def test_of_a_body_that_nobody_wants_nothing_is_kept(when: str) -> None:
    bulk = Bulk(b"abc", 100_000, SCRATCH, wanted=when == "within")
    if when == "within":
        fill(bulk, b"defg")
        bulk.drop()
    while bulk.left:
        room = bulk.room()
        assert 0 < len(room) <= min(bulk.left, len(SCRATCH))
        bulk.fill(len(room))
    assert bulk.body == b""
