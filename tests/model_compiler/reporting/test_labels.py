"""Names in a picture stand beside their dots, not over each other."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.reporting.labels import Box, Label, Placed, along, place

PICTURE = Box(0.0, 0.0, 400.0, 200.0)
labels = st.lists(
    st.builds(Label, st.floats(0, 400), st.floats(0, 200), st.floats(0, 90), st.just(12.0)), min_size=1, max_size=8
)


def placed_in(named: list[Label], *, avoid: list[Box] | None = None) -> list[Placed]:
    return [each for each in place(named, PICTURE, avoid=avoid or []) if each is not None]


@given(labels)
def test_every_name_stands_right_beside_its_dot(named: list[Label]) -> None:
    for label, placed in zip(named, placed_in(named), strict=True):
        assert abs(placed.x - label.x) <= 6.0 + 1e-9
        assert abs(placed.y - label.y) <= 3.0 + label.height / 2 + 1e-9
        assert placed.box.right - placed.box.left == pytest.approx(label.width)


def test_names_of_near_dots_do_not_cover_each_other() -> None:
    near = [Label(100.0 + 3 * at, 100.0 + 9 * at, 70.0, 12.0) for at in range(3)]
    boxes = [each.box for each in placed_in(near)]
    assert not any(one.overlap(other) for one, other in combinations(boxes, 2))


def test_a_name_at_the_right_end_turns_to_the_left() -> None:
    (placed,) = placed_in([Label(395.0, 100.0, 60.0, 12.0)])
    assert placed.side == "right"


def test_a_name_leaves_a_line_readable() -> None:
    line = along([(100.0, 100.0), (200.0, 100.0)])
    (placed,) = placed_in([Label(100.0, 100.0, 60.0, 12.0)], avoid=line)
    assert not any(placed.box.overlap(each) for each in line)


def test_a_name_among_lines_goes_to_the_end_of_its_whisker() -> None:
    lines = [Box(100.0 + at, 60.0, 102.0 + at, 140.0) for at in range(-80, 90, 20)]
    (placed,) = placed_in([Label(101.0, 100.0, 60.0, 12.0, above=40.0, below=40.0)], avoid=lines)
    assert placed.y > 140.0
    assert not any(placed.box.overlap(each) for each in lines)


def test_a_name_that_is_not_needed_is_left_out_where_it_would_cover_something() -> None:
    full = [PICTURE]
    assert placed_in([Label(100.0, 100.0, 60.0, 12.0)], avoid=full)
    assert place([Label(100.0, 100.0, 60.0, 12.0, needed=False)], PICTURE, avoid=full) == [None]
    assert placed_in([Label(100.0, 100.0, 60.0, 12.0, needed=False)])
