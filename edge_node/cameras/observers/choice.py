"""Which observer a model's answers are for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from contracts.camera_events import CameraMessage, PictureEvent
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.feed import Feed
from edge_node.cameras.observers.found import found_in_picture
from edge_node.cameras.observers.labels import Labels
from edge_node.cameras.observers.observer import Observer
from edge_node.cameras.observers.tracks import Tracks
from edge_node.cameras.observers.vectors import Vectors
from edge_node.cameras.snapshots.paths import snapshot_of
from runtime.serving.models.confidence import sure_of
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)

M = TypeVar("M", bound=CameraMessage)


def observer_for(config: CameraConfig, loaded: LoadedModel, feed: Feed, event_id: Callable[[], str]) -> Observer:
    """Tracks for a detector, vectors for an embedding model, else labels."""
    if loaded.manifest.task == "embedding":
        return Vectors(
            config.embedding,
            lambda at_s, **told: feed.say(PictureEvent, config.name, at_s, **told),
            event_id,
            snapshot_of=partial(snapshot_of, config.snapshots, config.name, "picture"),
            update_every_s=config.update_every_s,
        )
    if loaded.manifest.postprocess.detector is None:
        return Labels(
            lambda at_s, **told: feed.say(PictureEvent, config.name, at_s, **told),
            event_id,
            snapshot_of=partial(snapshot_of, config.snapshots, config.name, "picture"),
        )
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
        sure=lambda score: sure_of(score, loaded.artifact.confidence),
        say=say,
        event_id=event_id,
        snapshot_of=partial(snapshot_of, config.snapshots, config.name),
        update_every_s=config.update_every_s,
    )


def warm_up() -> None:
    """Loads what the first track would have to wait for, a third of a second. Blocks."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError:
        return
    linear_sum_assignment([[0.0]])
