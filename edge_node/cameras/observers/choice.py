"""Which observer a model's answers are for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from contracts.camera_events import CameraMessage, PictureEvent
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.feed import Feed
from edge_node.cameras.observers.labels import Labels
from edge_node.cameras.observers.observer import Observer
from edge_node.cameras.observers.tracks import Tracks
from edge_node.pipelines import Looked
from runtime.serving.models.found import Found
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.placing import placed

log = logging.getLogger(__name__)

M = TypeVar("M", bound=CameraMessage)


def observer_for(config: CameraConfig, loaded: LoadedModel, feed: Feed, event_id: Callable[[], str]) -> Observer:
    """Tracks for a detector, else labels."""
    if loaded.manifest.postprocess.detector is None:
        return Labels(lambda at_s, **told: feed.say(PictureEvent, config.name, at_s, **told), event_id)
    labels = loaded.manifest.labels
    try:
        config.scene.check_labels(labels)
    except ValueError as error:
        log.warning("camera %s: %s", config.name, error)

    def say(kind: type[M], at_s: float, **told: Any) -> M:
        return feed.say(kind, config.name, at_s, **told)

    return Tracks(
        config.tracker,
        config.scene,
        labels,
        find=found_in_picture,
        say=say,
        event_id=event_id,
        update_every_s=config.update_every_s,
    )


def found_in_picture(looked: Looked, size: Size) -> Found:
    """What a detector has found, in the pixels of a picture of that size."""
    pre = looked.loaded.manifest.preprocess
    assert looked.reading.found is not None
    assert pre is not None
    found = looked.reading.found[0]
    return found._replace(boxes=placed(found.boxes, size, pre))


def warm_up() -> None:
    """Loads what the first track would have to wait for, a third of a second. Blocks."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError:
        return
    linear_sum_assignment([[0.0]])
