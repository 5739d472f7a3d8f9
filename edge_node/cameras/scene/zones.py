"""Which track is in which zone: a table with a time to wait, so that who stands on the edge does not flicker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from edge_node.cameras.scene.anchors import Sighting
from edge_node.cameras.scene.config import ZoneConfig
from edge_node.cameras.scene.events import Entered, Left
from edge_node.cameras.scene.polygons import inside
from edge_node.cameras.tracking.track import Track

State = Literal["outside", "entering", "inside", "leaving"]

_NEXT: dict[tuple[State, bool], State] = {
    ("outside", True): "entering",
    ("outside", False): "outside",
    ("entering", True): "entering",
    ("entering", False): "outside",
    ("inside", True): "inside",
    ("inside", False): "leaving",
    ("leaving", True): "inside",
    ("leaving", False): "leaving",
}
"""By whether the anchor is within."""

_AFTER_DWELL: dict[State, State] = {"entering": "inside", "leaving": "outside"}
_ROUNDING_S = 1e-6


class Present(NamedTuple):
    """A track that is in a zone, since when."""

    track: int
    label: str
    since_s: float


class Zones:
    """The zones of one camera."""

    def __init__(self, zones: Iterable[ZoneConfig]) -> None:
        self._zones = {zone.name: _Zone(zone) for zone in zones}

    def update(self, sighting: Sighting) -> tuple[Entered | Left, ...]:
        """What has changed. What is missing stays where it was seen last."""
        events: list[Entered | Left] = []
        for zone in self._zones.values():
            events.extend(zone.update(sighting))
        return tuple(events)

    def present(self, zone: str) -> tuple[Present, ...]:
        """Who is in a zone, in the order they came to be known."""
        return tuple(self._zones[zone].present())


class _Stay:
    """One track at one zone. `changed_s` is when its state changed last, `since_s` when it came, `seen_s` when it was
    found last."""

    def __init__(self) -> None:
        self.state: State = "outside"
        self.changed_s = self.since_s = self.seen_s = 0.0
        self.label = ""

    def see(self, track: Track, within: bool, at_s: float) -> None:
        self._change(_NEXT[self.state, within], at_s)
        self.seen_s = at_s
        if self.state == "entering":
            self.label = track.label

    def settle(self, dwell_s: float, at_s: float) -> bool:
        """Whether it has come in or gone out for good."""
        if self.state not in _AFTER_DWELL or at_s - self.changed_s < dwell_s - _ROUNDING_S:
            return False
        self.state = _AFTER_DWELL[self.state]
        return True

    @property
    def is_there(self) -> bool:
        return self.state in ("inside", "leaving")

    @property
    def stayed_s(self) -> float:
        return (self.seen_s if self.state == "inside" else self.changed_s) - self.since_s

    def _change(self, state: State, at_s: float) -> None:
        if state == self.state:
            return
        if state == "entering":
            self.since_s = at_s
        self.state, self.changed_s = state, at_s


class _Zone:
    def __init__(self, config: ZoneConfig) -> None:
        self._config = config
        self._stays: dict[int, _Stay] = {}

    def update(self, sighting: Sighting) -> Iterator[Entered | Left]:
        yield from self._gone(sighting)
        within = inside(self._config.polygon, sighting.points(self._config.anchor)).tolist()
        for track, is_in in zip(sighting.found, within, strict=True):
            yield from self._seen(track, is_in and self._takes(track), sighting.at_s)

    def present(self) -> Iterator[Present]:
        for track, stay in self._stays.items():
            if stay.is_there:
                yield Present(track, stay.label, stay.since_s)

    def _takes(self, track: Track) -> bool:
        return not self._config.labels or track.label in self._config.labels

    def _seen(self, track: Track, within: bool, at_s: float) -> Iterator[Entered | Left]:
        stay = self._stays.setdefault(track.id, _Stay())
        stay.see(track, within, at_s)
        if not stay.settle(self._config.dwell_s, at_s):
            return
        if stay.is_there:
            yield Entered(self._config.name, track.id, stay.label, at_s, stay.since_s)
        else:
            yield self._left(track.id, stay, at_s)

    def _gone(self, sighting: Sighting) -> Iterator[Left]:
        for track in [track for track in self._stays if track not in sighting.going_on]:
            stay = self._stays.pop(track)
            if stay.is_there:
                yield self._left(track, stay, sighting.at_s)

    def _left(self, track: int, stay: _Stay, at_s: float) -> Left:
        return Left(self._config.name, track, stay.label, at_s, stay.stayed_s)
