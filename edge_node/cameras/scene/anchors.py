"""Where tracks are in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_node.cameras.scene.config import Anchor
from edge_node.cameras.scene.polygons import Floats
from edge_node.cameras.tracking.track import Track

_EDGE = 1e-6
"""A box may reach beyond the picture; its anchor is kept so far within, where a zone that ends at the edge has it."""


def anchors_of(tracks: Sequence[Track], anchor: Anchor, width: int, height: int) -> Floats:
    """[n, 2]: the anchor of each, in shares of a picture of this size."""
    return anchor_points(np.array([track.box for track in tracks], np.float64).reshape(-1, 4), anchor, width, height)


def anchor_points(boxes: Floats, anchor: Anchor, width: int, height: int) -> Floats:
    """[n, 2]: the anchor of each of `boxes` [n, 4]: left, top, right, bottom, in pixels."""
    across = (boxes[:, 0] + boxes[:, 2]) / 2
    down = boxes[:, 3] if anchor == "bottom-centre" else (boxes[:, 1] + boxes[:, 3]) / 2
    return np.clip(np.stack([across / width, down / height], axis=1), _EDGE, 1 - _EDGE)
