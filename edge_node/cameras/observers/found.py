"""What a detector has found, in the camera's own picture."""

from __future__ import annotations

from contracts.predictions import Box
from edge_node.pipelines import Looked
from runtime.serving.models.found import Found
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.placing import placed


def found_in_picture(looked: Looked, size: Size) -> Found:
    """What a detector has found, in the pixels of a picture of that size."""
    pre = looked.loaded.manifest.preprocess
    assert looked.reading.found is not None
    assert pre is not None
    found = looked.reading.found[0]
    return found._replace(boxes=placed(found.boxes, size, pre))


def things_in(looked: Looked | None, size: Size) -> list[Box] | None:
    """The same with their names; None where nobody has looked, or with a model that finds no things."""
    if looked is None or looked.reading.found is None:
        return None
    found, names = found_in_picture(looked, size), looked.loaded.manifest.labels
    told = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [Box(names[label] if label < len(names) else str(label), score, tuple(box)) for label, score, box in told]
