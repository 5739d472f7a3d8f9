"""Cameras and recording joined: which camera fills which ring, and what asks for clips."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from contracts.errors import FoothillError
from contracts.topics import CameraKind
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.feed import Feed
from edge_node.cameras.recording.metrics import RecordingMetrics
from edge_node.cameras.recording.part import RecordingPart
from edge_node.cameras.recording.ring import Ring

log = logging.getLogger(__name__)


class Recorded:
    """Its thread starts with the first camera that is recorded, or where there are clips."""

    def __init__(self, part: RecordingPart, feed: Feed, registry: CollectorRegistry) -> None:
        self.part = part
        feed.completers.append(part.occasions.complete)
        feed.forgetters.append(self._forget)
        registry.register(RecordingMetrics(part.counts, lambda: part.shelf.taken_bytes, lambda: part.rings))

    def resume(self) -> None:
        """Clips of an earlier life are listed, and go when they are old, also where nothing is recorded now. Blocks."""
        if self.part.directory.is_dir():
            self.part.start()

    def check(self, config: CameraConfig) -> None:
        """Raises FoothillError `bad_request` where its table makes no sense beside the node's."""
        try:
            self.part.check(config.recording)
        except ValueError as error:
            raise FoothillError("bad_request", f"camera {config.name}: recording: {error}.") from error

    def ring_of(self, config: CameraConfig) -> Ring | None:
        """What a camera that starts is to fill, in the place of what it filled before."""
        try:
            ring = self.part.add(config.name, config.recording)
        except ValueError as error:
            log.error("camera %s is not recorded: %s (the node's own table is read at the start)", config.name, error)
            return None
        if ring is not None:
            self.part.start()
        return ring

    def _forget(self, camera: str, _: CameraKind) -> None:
        self.part.remove(camera)
