"""The window of chunks under way."""

from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from runtime.links.chunks.window import FIRST_CHUNKS, FIRST_TIMEOUT_S, LONGEST_TIMEOUT_S, MOST_CHUNKS, Window


def fill(window: Window, first: int, now_s: float) -> list[int]:
    asked = list(range(first, first + window.room))
    for index in asked:
        window.ask(index, now_s)
    return asked


def test_it_begins_small_and_doubles_while_all_goes_well() -> None:
    window, number, now_s = Window(), 0, 0.0
    sizes = []
    for _ in range(6):
        sizes.append(window.size)
        asked = fill(window, number, now_s)
        number, now_s = number + len(asked), now_s + 0.1
        for index in asked:
            window.arrived(index, now_s)
    assert sizes == [FIRST_CHUNKS, 8, 16, 32, 64, MOST_CHUNKS]


def test_one_mishap_halves_it_once_and_the_next_halves_it_again() -> None:
    window = Window()
    for index in range(60):
        window.ask(index, 0.0)
        window.arrived(index, 0.1)
    assert window.size == MOST_CHUNKS
    fill(window, 100, 1.0)
    assert len(window.late(1.0 + FIRST_TIMEOUT_S)) == MOST_CHUNKS
    assert window.size == MOST_CHUNKS // 2
    now_s = 10.0
    window.ask(500, now_s)
    assert window.late(now_s + LONGEST_TIMEOUT_S) == [500]
    assert window.size == MOST_CHUNKS // 4


def test_slow_chunks_do_not_widen_it_and_very_slow_ones_narrow_it() -> None:
    window = Window()
    for index in range(100):
        window.ask(index, 0.0)
        window.arrived(index, 1.0)
    assert window.size == FIRST_CHUNKS
    for index in range(100, 200):
        window.ask(index, 0.0)
        window.arrived(index, 2.5)
    assert window.size == 1


def test_a_late_chunk_is_taken_and_teaches_nothing() -> None:
    window = Window()
    window.ask(7, 0.0)
    assert window.late(FIRST_TIMEOUT_S) == [7]
    assert window.knows(7)
    before_s = window.wait_s(0.0)
    assert not window.arrived(7, FIRST_TIMEOUT_S + 0.1), "it was to be asked for again"
    assert not window.knows(7)
    assert window.wait_s(0.0) == before_s


def test_after_a_lost_connection_all_is_asked_again_and_nobody_is_to_blame() -> None:
    window = Window()
    asked = fill(window, 0, 0.0)
    assert window.forget() == asked
    assert (window.room, window.size) == (FIRST_CHUNKS, FIRST_CHUNKS)
    assert all(window.knows(index) for index in asked)


@given(
    st.integers(1, 400),
    st.lists(st.tuples(st.booleans(), st.floats(0.001, 40.0)), min_size=1, max_size=50),
)
def test_every_chunk_comes_in_the_end_and_never_more_than_allowed_are_under_way(
    count: int, fates: list[tuple[bool, float]]
) -> None:
    """A link that loses and delays as it likes, but not for ever: of each chunk the third answer comes through."""
    window, missing, now_s = Window(), list(range(count)), 0.0
    coming: list[tuple[float, int]] = []
    tries = dict.fromkeys(range(count), 0)
    here: set[int] = set()
    turn = 0
    while len(here) < count:
        while missing and window.room:
            index = missing.pop(0)
            window.ask(index, now_s)
            assert 1 <= window.size <= MOST_CHUNKS
            tries[index] += 1
            lost, delay_s = fates[turn % len(fates)]
            turn += 1
            if not lost or tries[index] >= 3:
                heapq.heappush(coming, (now_s + delay_s, index))
        due_s = now_s + max(1e-6, window.wait_s(now_s))
        if coming and coming[0][0] <= due_s:
            now_s, index = heapq.heappop(coming)
            if window.knows(index):
                if not window.arrived(index, now_s):
                    missing.remove(index)
                here.add(index)
        else:
            now_s = due_s
        missing[:0] = window.late(now_s)
    assert not missing
