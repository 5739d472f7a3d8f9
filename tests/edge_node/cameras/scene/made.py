"""Tracks made up for the tests of a scene."""

from __future__ import annotations

from edge_node.cameras.scene.polygons import Point
from edge_node.cameras.tracking.track import Track


def track_at(
    foot: Point, at_s: float, number: int = 1, label: str = "person", size: tuple[int, int] = (800, 600)
) -> Track:
    """Found at `at_s` with its feet at a point in shares of a picture of this size."""
    x, y = foot[0] * size[0], foot[1] * size[1]
    half, height = 0.02 * size[0], 0.1 * size[1]
    return Track(number, label, 0.9, (x - half, y - height, x + half, y), 0.0, at_s, "confirmed", 5, False, 0.9)
