"""Polygons: what lies within, what covers a picture, what crosses itself."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.scene.polygons import Polygon, allowed, crosses_itself, filled, inside, segments_touch

SQUARE: Polygon = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
BOW: Polygon = ((0.2, 0.2), (0.8, 0.8), (0.8, 0.2), (0.2, 0.8))
HOOK: Polygon = ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.5, 0.9), (0.5, 0.5), (0.1, 0.5))

grid = st.integers(0, 16).map(lambda number: number / 16)
points = st.tuples(grid, grid)


@st.composite
def stars(draw: st.DrawFn) -> Polygon:
    """Polygons around the middle, at rising angles: none crosses itself."""
    count = draw(st.integers(3, 9))
    radii = draw(st.lists(st.floats(0.1, 0.5), min_size=count, max_size=count))
    return tuple(
        (0.5 + radius * math.cos(math.tau * at / count), 0.5 + radius * math.sin(math.tau * at / count))
        for at, radius in enumerate(radii)
    )


def winding(polygon: Polygon, x: float, y: float) -> float:
    """How often the polygon goes around a point: another way to tell whether it lies within."""
    angles = [math.atan2(b - y, a - x) for a, b in polygon]
    turns = [
        (after - before + math.pi) % math.tau - math.pi
        for before, after in zip(angles, angles[1:] + angles[:1], strict=True)
    ]
    return abs(sum(turns)) / math.tau


@given(stars(), st.floats(0, 1), st.floats(0, 1))
def test_inside_is_what_the_polygon_goes_around(polygon: Polygon, x: float, y: float) -> None:
    turns = winding(polygon, x, y)
    (within,) = inside(polygon, np.array([[x, y]])).tolist()
    if not math.isclose(turns, round(turns), abs_tol=1e-3):
        return  # on the edge
    assert within is (round(turns) == 1)


@given(stars(), st.integers(1, 40), st.integers(1, 30))
def test_a_mask_holds_the_pixels_whose_centres_are_inside(polygon: Polygon, width: int, height: int) -> None:
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    wanted = inside(polygon, np.stack([x.ravel(), y.ravel()], axis=1)).reshape(height, width)
    mask = filled([polygon], width, height)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(wanted, 255, 0))


@given(stars())
def test_a_mask_is_what_opencv_fills_but_for_its_edge(polygon: Polygon) -> None:
    mask, other, edge = filled([polygon], 400, 300), np.zeros((300, 400), np.uint8), np.zeros((300, 400), np.uint8)
    corners = np.array([[(x * 400 - 0.5) * 256, (y * 300 - 0.5) * 256] for x, y in polygon]).round().astype(np.int32)
    cv2.fillPoly(other, [corners], (255,), shift=8)
    cv2.polylines(edge, [corners], isClosed=True, color=(255,), thickness=3, shift=8)
    assert not np.any((mask != other) & (edge == 0))


def test_neighbours_share_no_point_and_leave_no_gap() -> None:
    halves = [((0.0, 0.0), (0.3, 0.0), (0.6, 1.0), (0.0, 1.0)), ((0.3, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 1.0))]
    masks = [filled([half], 97, 61).astype(int) for half in halves]
    np.testing.assert_array_equal(masks[0] + masks[1], 255)


def test_what_is_allowed_lies_within_the_one_and_outside_the_other() -> None:
    assert (allowed((), (), 8, 6) == 255).all()
    hole = allowed((), (SQUARE,), 8, 8)
    assert hole.sum() == 255 * (64 - 16)
    ring = allowed((((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),), (SQUARE,), 8, 8)
    np.testing.assert_array_equal(ring, hole)
    assert not allowed((SQUARE,), (SQUARE,), 8, 8).any()


@given(stars())
def test_stars_do_not_cross_themselves(polygon: Polygon) -> None:
    assert not crosses_itself(polygon)


@pytest.mark.parametrize(
    ("polygon", "crosses"),
    [
        (SQUARE, False),
        (HOOK, False),
        (BOW, True),
        (((0, 0), (1, 0), (0.5, 0)), True),  # flat
        (((0, 0), (1, 0), (1, 1), (1, 0.5)), True),  # back on itself
        (((0, 0), (0.5, 0.5), (1, 0), (1, 1), (0.5, 0.5), (0, 1)), True),  # touches a corner
        (((0, 0), (1, 0), (1, 1), (0.5, 0), (0, 1)), True),  # a corner on an edge
    ],
)
def test_what_crosses_itself(polygon: Polygon, crosses: bool) -> None:
    assert crosses_itself(polygon) is crosses
    assert crosses_itself(polygon[::-1]) is crosses
    assert crosses_itself(polygon[1:] + polygon[:1]) is crosses


@given(points, points, points, points)
def test_touching_does_not_depend_on_the_order(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> None:
    assert segments_touch(a, b, c, d) == segments_touch(c, d, a, b) == segments_touch(b, a, d, c)
    assert segments_touch(a, b, a, d)
