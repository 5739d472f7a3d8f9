"""Where tracks are in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_node.cameras.scene.config import Anchor
from edge_node.cameras.scene.polygons import Floats
from edge_node.cameras.tracking.track import Track

_EDGE = 1e-6
"""A box may reach beyond the picture; its anchor is kept so far within, where a zone that ends at the edge has it."""


class Sighting:
    """The tracks that are not over by a picture of `at_s`, `width` by `height` pixels.

    `found` are those that were found in this very picture; nobody knows where the others are by now.
    """

    def __init__(self, tracks: Sequence[Track], width: int, height: int, at_s: float) -> None:
        self.at_s = at_s
        self.going_on = frozenset(track.id for track in tracks)
        self.found = [track for track in tracks if track.last_s == at_s]
        self._boxes = np.array([track.box for track in self.found], np.float64).reshape(-1, 4)
        self._size = (width, height)
        self._points: dict[Anchor, Floats] = {}

    def points(self, anchor: Anchor) -> Floats:
        """[len(found), 2]: the anchor of each, in shares of the picture."""
        if anchor not in self._points:
            self._points[anchor] = anchor_points(self._boxes, anchor, *self._size)
        return self._points[anchor]


def anchor_points(boxes: Floats, anchor: Anchor, width: int, height: int) -> Floats:
    """[n, 2]: the anchor of each of `boxes` [n, 4]: left, top, right, bottom, in pixels."""
    across = (boxes[:, 0] + boxes[:, 2]) / 2
    down = boxes[:, 3] if anchor == "bottom-centre" else (boxes[:, 1] + boxes[:, 3]) / 2
    return np.clip(np.stack([across / width, down / height], axis=1), _EDGE, 1 - _EDGE)
