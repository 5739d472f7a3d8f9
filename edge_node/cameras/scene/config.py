"""What a camera watches for: zones, masks, lines and rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_node.cameras.scene import polygons
from edge_node.cameras.scene.polygons import Point, Polygon

Anchor = Literal["bottom-centre", "centre"]
"""Which point of a box says where a track is."""

Hides = Literal["motion", "detections", "pixels"]

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Labels = Annotated[tuple[str, ...], Meta(max_length=1000)]
_Most = Meta(max_length=64)

_NAME = re.compile(r"[a-z0-9-]{1,63}")
_MOST_POINTS = 100
_SHORTEST = 0.01


class ZoneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place. A track is in it once its `anchor` has been within for `dwell_s`, and out of it likewise.

    `labels` empty: all.
    """

    name: str
    polygon: Polygon
    labels: Labels = ()
    anchor: Anchor = "bottom-centre"
    dwell_s: Seconds = 0.5

    def __post_init__(self) -> None:
        _check_name("zone", self.name)
        _check_polygon(f"zone {self.name}", self.polygon)


class MaskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place that is not looked at. `hides`: `motion` there wakes nobody, `detections` whose bottom centre is there
    are dropped, `pixels` there never leave the box."""

    name: str
    polygon: Polygon
    hides: tuple[Hides, ...] = ("motion", "detections")

    def __post_init__(self) -> None:
        _check_name("mask", self.name)
        _check_polygon(f"mask {self.name}", self.polygon)
        if not self.hides:
            raise ValueError(f"mask {self.name} hides nothing: name motion, detections or pixels in hides, or drop it.")


class LineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line to cross: `in` from the left hand of who goes from `start` to `end` to the right hand, `out` the other
    way.

    A track is on a side once its `anchor` is further from the line than `margin`, a share of the picture. `labels`
    empty: all.
    """

    name: str
    start: Point
    end: Point
    labels: Labels = ()
    anchor: Anchor = "bottom-centre"
    margin: Annotated[float, Meta(ge=0, le=0.5)] = 0.02

    def __post_init__(self) -> None:
        _check_name("line", self.name)
        _check_points(f"line {self.name}", (self.start, self.end))
        if max(abs(self.end[0] - self.start[0]), abs(self.end[1] - self.start[1])) < _SHORTEST:
            raise ValueError(
                f"line {self.name} is shorter than {_SHORTEST} of the picture: move start and end further apart."
            )


class RuleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`at_least` tracks with one of `labels` (empty: any) have each been in `zone` for `for_s`.

    After it is over the rule does not begin again for `cooldown_s`.
    """

    name: str
    zone: str
    labels: Labels = ()
    for_s: Seconds = 0.0
    at_least: Annotated[int, Meta(ge=1, le=1000)] = 1
    cooldown_s: Seconds = 0.0

    def __post_init__(self) -> None:
        _check_name("rule", self.name)


class SceneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one camera watches for. Names are unique among their kind."""

    zones: Annotated[tuple[ZoneConfig, ...], _Most] = ()
    masks: Annotated[tuple[MaskConfig, ...], _Most] = ()
    lines: Annotated[tuple[LineConfig, ...], _Most] = ()
    rules: Annotated[tuple[RuleConfig, ...], _Most] = ()

    def __post_init__(self) -> None:
        for kind in ("zone", "mask", "line", "rule"):
            _check_unique(kind, [each.name for each in getattr(self, f"{kind}s")])
        for rule in self.rules:
            _check_rule(rule, self.zones)

    def check_labels(self, known: Sequence[str]) -> None:
        """Raises ValueError where a zone, line or rule names a label that the model does not have."""
        for kind, those in (("zone", self.zones), ("line", self.lines), ("rule", self.rules)):
            for each in those:
                unknown = [label for label in each.labels if label not in known]
                if unknown:
                    raise ValueError(
                        f"{kind} {each.name} names {_listed(unknown)}, which the model does not know. "
                        f"Its labels are {_listed(known)}."
                    )


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a {kind}: use 1 to 63 lower-case letters, digits and '-'.")


def _check_points(what: str, points: Iterable[Point]) -> None:
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(
                f"({x:g}, {y:g}) of {what} lies outside the picture: write shares of its width and height, 0 to 1. "
                "From pixels: x / width, y / height."
            )


def _check_polygon(what: str, polygon: Polygon) -> None:
    if not 3 <= len(polygon) <= _MOST_POINTS:
        raise ValueError(f"{what} has {len(polygon)} points: a polygon needs 3, and may have {_MOST_POINTS}.")
    _check_points(what, polygon)
    if polygon[0] == polygon[-1]:
        raise ValueError(f"{what} ends at the point it begins with: leave the last one out, polygons close themselves.")
    if any(point == following for point, following in pairwise(polygon)):
        raise ValueError(f"{what} names a point twice in succession: leave one out.")
    if polygons.crosses_itself(polygon):
        raise ValueError(f"{what} crosses itself, or is flat: name its corners in order, along the edge.")


def _check_unique(kind: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"there are several {kind}s called {_listed(twice)}: give each a name of its own.")


def _check_rule(rule: RuleConfig, zones: Sequence[ZoneConfig]) -> None:
    zone = next((zone for zone in zones if zone.name == rule.zone), None)
    if zone is None:
        raise ValueError(
            f"rule {rule.name} watches zone {rule.zone!r}, which there is none of. "
            f"The zones are {_listed([zone.name for zone in zones])}: correct the rule, or add the zone."
        )
    if zone.labels and not set(rule.labels) <= set(zone.labels):
        raise ValueError(
            f"rule {rule.name} waits for {_listed(rule.labels)}, but zone {zone.name} only takes "
            f"{_listed(zone.labels)}: add the labels to the zone, or take its labels away."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
