"""How many are in each zone now, and have crossed each line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from edge_node.cameras.scene.config import SceneConfig
from edge_node.cameras.scene.events import Crossed, Direction, Entered, Left, SceneEvent


class ZoneCount(msgspec.Struct, frozen=True):
    """By label: who is there `now`, and how many have `entered` since the last reset."""

    zone: str
    now: dict[str, int]
    entered: dict[str, int]


class LineCount(msgspec.Struct, frozen=True, rename={"inwards": "in", "outwards": "out"}):
    """By label: how many have crossed either way since the last reset."""

    line: str
    inwards: dict[str, int]
    outwards: dict[str, int]


class Counts:
    """The counts of one camera, kept from what its zones and lines tell."""

    def __init__(self, scene: SceneConfig) -> None:
        self._now: dict[str, Counter[str]] = {zone.name: Counter() for zone in scene.zones}
        self._lines = [line.name for line in scene.lines]
        self.reset()

    def note(self, events: Iterable[SceneEvent]) -> None:
        for event in events:
            if isinstance(event, Entered):
                self._now[event.zone][event.label] += 1
                self._entered[event.zone][event.label] += 1
            elif isinstance(event, Left):
                self._now[event.zone][event.label] -= 1
            elif isinstance(event, Crossed):
                self._crossed[event.line, event.direction][event.label] += 1

    def reset(self) -> None:
        """Totals begin anew, at midnight or whenever the caller's day begins; who is in a zone stays there."""
        self._entered: dict[str, Counter[str]] = {zone: Counter() for zone in self._now}
        self._crossed: dict[tuple[str, Direction], Counter[str]] = {}
        for line in self._lines:
            self._crossed[line, "in"], self._crossed[line, "out"] = Counter(), Counter()

    def zones(self) -> tuple[ZoneCount, ...]:
        return tuple(ZoneCount(zone, _some(now), _some(self._entered[zone])) for zone, now in self._now.items())

    def lines(self) -> tuple[LineCount, ...]:
        return tuple(
            LineCount(line, _some(self._crossed[line, "in"]), _some(self._crossed[line, "out"])) for line in self._lines
        )


def _some(counter: Counter[str]) -> dict[str, int]:
    """Without labels of which there are none."""
    return {label: counter[label] for label in sorted(counter) if counter[label]}
