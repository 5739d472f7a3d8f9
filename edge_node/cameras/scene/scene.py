"""From tracks to what happens at a place."""

from __future__ import annotations

from collections.abc import Sequence

from edge_node.cameras.scene.anchors import Sighting
from edge_node.cameras.scene.config import SceneConfig
from edge_node.cameras.scene.counts import Counts
from edge_node.cameras.scene.events import SceneEvent
from edge_node.cameras.scene.lines import Lines
from edge_node.cameras.scene.rules import Rules
from edge_node.cameras.scene.zones import Zones
from edge_node.cameras.tracking.track import Track


class Scene:
    """The zones, lines, counts and rules of one camera."""

    def __init__(self, config: SceneConfig) -> None:
        self._config = config
        self.zones = Zones(config.zones)
        self.lines = Lines(config.lines)
        self.counts = Counts(config)
        self.rules = Rules(config.rules)

    def update(self, tracks: Sequence[Track], width: int, height: int, at_s: float) -> tuple[SceneEvent, ...]:
        """What happens by the picture of `at_s`, of this size in pixels; `tracks` are all that are not over.

        To be called after every update and tick of the tracker, with what its `tracks` are then.
        """
        sighting = Sighting(tracks, width, height, at_s)
        moves: tuple[SceneEvent, ...] = (*self.zones.update(sighting), *self.lines.update(sighting))
        self.counts.note(moves)
        return (*moves, *self.rules.update(self.zones.present, at_s))

    def set_back(self) -> None:
        """The clock was, once nobody was there any more: no rule waits for times that are over. Counts go on."""
        self.rules = Rules(self._config.rules)
