"""Names in a picture stand beside their dots, not over each other."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.reporting.labels import Box, Label, along, place

PICTURE = Box(0.0, 0.0, 400.0, 200.0)
labels = st.lists(
    st.builds(Label, st.floats(0, 400), st.floats(0, 200), st.floats(0, 90), st.just(12.0)), min_size=1, max_size=8
)


@given(labels)
def test_every_name_stands_right_beside_its_dot(named: list[Label]) -> None:
    for label, placed in zip(named, place(named, PICTURE), strict=True):
        assert abs(placed.x - label.x) <= 6.0 + 1e-9
        assert abs(placed.y - label.y) <= 3.0 + label.height / 2 + 1e-9
        assert placed.box.right - placed.box.left == pytest.approx(label.width)


def test_names_of_near_dots_do_not_cover_each_other() -> None:
    near = [Label(100.0 + 3 * at, 100.0 + 9 * at, 70.0, 12.0) for at in range(3)]
    boxes = [each.box for each in place(near, PICTURE)]
    assert not any(one.overlap(other) for one, other in combinations(boxes, 2))


def test_a_name_at_the_right_end_turns_to_the_left() -> None:
    (placed,) = place([Label(395.0, 100.0, 60.0, 12.0)], PICTURE)
    assert placed.side == "right"


def test_a_name_leaves_a_line_readable() -> None:
    line = along([(100.0, 100.0), (200.0, 100.0)])
    (placed,) = place([Label(100.0, 100.0, 60.0, 12.0)], PICTURE, avoid=line)
    assert not any(placed.box.overlap(each) for each in line)
