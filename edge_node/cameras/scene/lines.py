"""Who has crossed which line, which way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from edge_node.cameras.scene.anchors import Sighting
from edge_node.cameras.scene.config import LineConfig
from edge_node.cameras.scene.events import Crossed, Direction
from edge_node.cameras.scene.polygons import Point, segments_touch, side
from edge_node.cameras.tracking.track import Track


class Lines:
    """The lines of one camera."""

    def __init__(self, lines: Iterable[LineConfig]) -> None:
        self._lines = [_Line(line) for line in lines]

    def update(self, sighting: Sighting) -> tuple[Crossed, ...]:
        """Who has crossed by now; who was missing meanwhile has gone straight on."""
        events: list[Crossed] = []
        for line in self._lines:
            events.extend(line.update(sighting))
        return tuple(events)


class _Passer:
    """Where one track was last clear of the line, on which side, and which way it was counted last."""

    def __init__(self, point: Point, on_right: bool) -> None:
        self.point = point
        self.on_right = on_right
        self.counted: Direction | None = None


class _Line:
    def __init__(self, config: LineConfig) -> None:
        self._config = config
        self._length = math.dist(config.start, config.end)
        self._passers: dict[int, _Passer] = {}

    def update(self, sighting: Sighting) -> Iterator[Crossed]:
        self._passers = {track: passer for track, passer in self._passers.items() if track in sighting.going_on}
        points = sighting.points(self._config.anchor).tolist()
        for track, (x, y) in zip(sighting.found, points, strict=True):
            direction = self._moved(track.id, (x, y)) if self._takes(track) else None
            if direction is not None:
                yield Crossed(self._config.name, track.id, track.label, direction, sighting.at_s)

    def _takes(self, track: Track) -> bool:
        return not self._config.labels or track.label in self._config.labels

    def _moved(self, track: int, point: Point) -> Direction | None:
        """The way it has crossed, where it is to be counted: once each way until it comes back."""
        away = side(self._config.start, self._config.end, point) / self._length
        if abs(away) <= self._config.margin:
            return None
        passer = self._passers.setdefault(track, _Passer(point, away > 0))
        crossed = passer.on_right != (away > 0) and segments_touch(
            self._config.start, self._config.end, passer.point, point
        )
        passer.point, passer.on_right = point, away > 0
        direction: Direction = "in" if passer.on_right else "out"
        if not crossed or passer.counted == direction:
            return None
        passer.counted = direction
        return direction
