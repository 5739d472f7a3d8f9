"""Recording put together: rings of cameras, the thread that cuts clips out of them, and the clips on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge_node.cameras.recording.clips import Clips
from edge_node.cameras.recording.config import CameraRecordingConfig, Limits, RecordingConfig, limits_of
from edge_node.cameras.recording.library import Library
from edge_node.cameras.recording.metrics import RecordingCounts
from edge_node.cameras.recording.occasions import Occasions
from edge_node.cameras.recording.ring import Ring
from edge_node.cameras.recording.shelf import Shelf
from edge_node.cameras.recording.tenure import Tenure
from runtime.links.process.disk import REAL_DISK, Disk

LAG_S = 5.0
"""From a picture to the clip that an event in it asks for, at most: a ring holds that much more."""


class RecordingPart:
    """Everything of a node that has to do with clips. `add`, `remove` and `want` are for the event loop; none blocks.

    `state_dir` is where clips are, unless the configuration names another directory.
    """

    def __init__(
        self,
        state_dir: Path,
        config: RecordingConfig,
        *,
        disk: Disk = REAL_DISK,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._limits: dict[str, Limits] = {}
        self.rings: dict[str, Ring] = {}
        self.counts = RecordingCounts()
        self.directory = Path(config.directory) if config.directory else state_dir / "clips"
        self._tenure = Tenure()
        self.shelf = Shelf(
            self.directory, config, self._limits, disk=disk, wall=wall, clock=clock, hold=self._tenure.take
        )
        self.library = Library(self.shelf)
        self._clips = Clips(self.shelf, self.counts, clock=clock)
        self.want = self._clips.want
        self.is_coming = self._clips.is_coming
        self.occasions = Occasions(self._clips.want)

    @property
    def begun(self) -> bool:
        """Whether clips are written, or were: there may be some."""
        return self._clips.begun

    def check(self, config: CameraRecordingConfig) -> None:
        """Raises ValueError as `limits_of`."""
        limits_of(self._config, config)

    def add(self, camera: str, config: CameraRecordingConfig) -> Ring | None:
        """The ring that the camera's thread is to fill; None where nothing of it is recorded.

        In the place of an earlier one of that name. Raises ValueError as `limits_of`.
        """
        limits = limits_of(self._config, config)
        self.remove(camera)
        self._limits[camera] = limits
        if not limits.on:
            return None
        ring = Ring(camera, hold_s=limits.pre_s + LAG_S, max_bytes=limits.ring_bytes)
        self.rings[camera] = ring
        self._clips.watch(camera, ring, limits)
        self.occasions.choose(camera, config)
        return ring

    def remove(self, camera: str) -> None:
        """Its clips stay."""
        self._limits.pop(camera, None)
        self.rings.pop(camera, None)
        self._clips.forget(camera)
        self.occasions.forget(camera)

    def start(self) -> None:
        """Once or more often."""
        self._clips.start()

    def close(self) -> None:
        """Blocks for ten seconds at most, while what is being written is ended."""
        self._clips.close()
        self._tenure.drop()
