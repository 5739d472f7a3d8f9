"""Polygons in shares of the picture: (0, 0) is its left upper corner, (1, 1) its right lower one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Polygon = tuple[Point, ...]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.uint8]

_INSIDE = 255


def inside(polygon: Sequence[Point], points: Floats) -> npt.NDArray[np.bool_]:
    """[n]: which of `points` [n, 2] lie within; even-odd rule, each edge belongs to what is right of or below it."""
    starts = np.array(polygon, np.float64)
    ends, x, y = np.concatenate([starts[1:], starts[:1]]), points[:, 0, None], points[:, 1, None]
    passes = (starts[:, 1] > y) != (ends[:, 1] > y)
    steep = np.where(passes, ends[:, 1] - starts[:, 1], 1.0)
    at = starts[:, 0] + (ends[:, 0] - starts[:, 0]) * (y - starts[:, 1]) / steep
    return np.asarray(np.logical_xor.reduce(passes & (x < at), axis=1))


def filled(polygons: Iterable[Sequence[Point]], width: int, height: int) -> Mask:
    """[height, width]: 255 for the pixels whose centre lies within any of the polygons, else 0."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        mask[_covered(polygon, width, height)] = _INSIDE
    return mask


def allowed(include: Sequence[Sequence[Point]], exclude: Sequence[Sequence[Point]], width: int, height: int) -> Mask:
    """[height, width]: 255 within any of `include` (empty: everywhere) and outside all of `exclude`, else 0."""
    mask = filled(include, width, height) if include else np.full((height, width), _INSIDE, np.uint8)
    mask[filled(exclude, width, height) > 0] = 0
    return mask


def crosses_itself(polygon: Sequence[Point]) -> bool:
    """Whether two edges touch other than at the corner that they share, or one runs back over the other."""
    edges, count = list(_edges(polygon)), len(polygon)
    for (first, one), (second, other) in combinations(enumerate(edges), 2):
        if second - first == 1:
            touches = _turns_back(one[0], one[1], other[1])
        elif second - first == count - 1:
            touches = _turns_back(other[0], other[1], one[1])
        else:
            touches = segments_touch(*one, *other)
        if touches:
            return True
    return False


def segments_touch(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether a-b and c-d have a point in common."""
    sides = side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)
    if sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0:
        return True
    on = ((sides[0], a, b, c), (sides[1], a, b, d), (sides[2], c, d, a), (sides[3], c, d, b))
    return any(turn == 0 and _between(start, end, point) for turn, start, end, point in on)


def side(start: Point, end: Point, point: Point) -> float:
    """Above 0 where `point` is on the right hand of who goes from `start` to `end`, below 0 on the left, 0 between."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def _edges(polygon: Sequence[Point]) -> Iterable[tuple[Point, Point]]:
    return zip(polygon, (*polygon[1:], polygon[0]), strict=True)


def _covered(polygon: Sequence[Point], width: int, height: int) -> npt.NDArray[np.bool_]:
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    covered = np.zeros((height, width), np.bool_)
    for start, end in _edges(polygon):
        rows = np.flatnonzero((start[1] > y) != (end[1] > y))
        at = start[0] + (end[0] - start[0]) * (y[rows] - start[1]) / (end[1] - start[1])
        covered[rows] ^= x[None, :] < at[:, None]
    return covered


def _turns_back(a: Point, b: Point, c: Point) -> bool:
    """Whether the way from a over b to c runs back on itself."""
    ahead = (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1])
    return side(a, b, c) == 0 and ahead < 0


def _between(start: Point, end: Point, point: Point) -> bool:
    """For a point on the endless line through both."""
    return all(min(s, e) <= p <= max(s, e) for s, e, p in zip(start, end, point, strict=True))
