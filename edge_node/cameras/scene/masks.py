"""What masks hide."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge_node.cameras.scene import polygons
from edge_node.cameras.scene.anchors import anchor_points
from edge_node.cameras.scene.config import Hides, MaskConfig
from edge_node.cameras.scene.polygons import Mask
from runtime.serving.models.found import Found


def hidden(masks: Iterable[MaskConfig], what: Hides, width: int, height: int) -> Mask:
    """[height, width]: 255 for the pixels where masks hide it, else 0."""
    return polygons.filled([mask.polygon for mask in masks if what in mask.hides], width, height)


def without_hidden(found: Found, masks: Iterable[MaskConfig], width: int, height: int) -> Found:
    """The detections, in a picture of this size, whose bottom centre no mask hides."""
    feet = anchor_points(found.boxes.astype(np.float64), "bottom-centre", width, height)
    seen = np.ones(len(found.boxes), np.bool_)
    for mask in masks:
        if "detections" in mask.hides:
            seen &= ~polygons.inside(mask.polygon, feet)
    return Found(found.boxes[seen], found.scores[seen], found.labels[seen])
