"""The order of those who wait: levels, deadlines, and that no level waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.serving.batching.line import LEVELS, PATIENCE, Entry, Line, level_of

ASKED = st.lists(st.tuples(st.integers(1, LEVELS), st.integers(0, 20), st.integers(1, 4)), max_size=30)


def entry(level: int, expires_at_s: float, rows: int = 1) -> Entry:
    return Entry(rows=rows, key="", level=level, since_s=0.0, expires_at_s=expires_at_s)


@given(ASKED, st.data())
def test_levels_then_deadlines_then_arrival_and_nothing_is_lost(
    asked: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    line: Line[Entry] = Line()
    entries = [entry(level, expires, rows) for level, expires, rows in asked]
    for each in entries:
        line.add(each)
    gone = data.draw(st.lists(st.sampled_from(entries), unique_by=id)) if entries else []
    assert all(line.discard(each) for each in gone)
    assert not any(line.discard(each) for each in gone)
    left = [each for each in entries if not any(each is one for one in gone)]
    assert [*line.ordered()] == sorted(left, key=lambda each: (each.level, each.expires_at_s, each.ticket))
    assert (line.waiting, line.rows) == (len(left), sum(each.rows for each in left))
    assert line.lowest() is next(reversed([*line.ordered()]), None)


@given(ASKED, st.integers(1, LEVELS), st.integers(0, 20))
def test_rows_ahead_are_those_that_go_first(asked: list[tuple[int, int, int]], level: int, expires: int) -> None:
    line: Line[Entry] = Line()
    for each_level, each_expires, _ in asked:
        line.add(entry(each_level, each_expires))
    newcomer = entry(level, expires)
    ahead = line.ahead(level, expires)
    line.add(newcomer)
    assert ahead == [*line.ordered()].index(newcomer)


@given(st.integers(1, 3))
def test_no_level_is_passed_over_for_ever(per_run: int) -> None:
    line: Line[Entry] = Line()
    for number in range(40):
        line.add(entry(2, number))
        line.add(entry(3, number))
    passed = {2: 0, 3: 0}
    for number in range(100):
        for _ in range(per_run):
            line.add(entry(1, number))
        batch = [*line.ordered()][:per_run]
        line.led(batch)
        for level in passed:
            passed[level] = 0 if level in {each.level for each in batch} else passed[level] + 1
            assert passed[level] <= PATIENCE + LEVELS


def test_levels_of_priorities() -> None:
    assert [level_of(priority) for priority in (0, 1, 2, 3, 4, 1 << 63)] == [2, 1, 2, 3, 3, 3]
