"""Regions and the published round-trip times between them (`runtime/data`, with their source in the files)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from contracts.places import Place, distance_km

SAME_REGION_RTT_MS = 2.0
"""Two parties in one region. Not in the published table; a round number for a metropolitan network."""

_DATA = Path(__file__).parent / "data"


class Region(msgspec.Struct, frozen=True):
    """`name` is a node-name-like id (`germanywestcentral`), `title` the provider's, `city` where it is."""

    name: str
    title: str
    city: str
    continent: str
    place: Place


class RegionTable:
    """All regions of the table, and what a round trip between two of them takes."""

    def __init__(self, regions: Mapping[str, Region], published_ms: Mapping[tuple[str, str], float]) -> None:
        self.regions = dict(regions)
        self._published_ms = dict(published_ms)

    def rtt_ms(self, a: str, b: str) -> float:
        """The mean of both published directions. Raises KeyError for a region or a pair that is not in the table."""
        if a == b:
            self._known(a)
            return SAME_REGION_RTT_MS
        directions = [self._published_ms[pair] for pair in ((a, b), (b, a)) if pair in self._published_ms]
        if not directions:
            self._known(a)
            self._known(b)
            raise KeyError(f"No round-trip time is published between {a} and {b}.")
        return sum(directions) / len(directions)

    def nearest_region(self, place: Place) -> Region:
        """The region nearest by great circle."""
        return min(self.regions.values(), key=lambda region: distance_km(region.place, place))

    def _known(self, name: str) -> None:
        if name not in self.regions:
            raise KeyError(f"{name!r} is not in the region table: {', '.join(self.regions)}.")


def load() -> RegionTable:
    """The table that comes with the package."""
    regions = {row["region"]: _region(row) for row in _rows(_DATA / "regions.csv")}
    published_ms = {
        (row["region"], to): float(value)
        for row in _rows(_DATA / "region_rtt_ms.csv")
        for to, value in row.items()
        if to != "region" and value
    }
    return RegionTable(regions, published_ms)


def _region(row: Mapping[str, str]) -> Region:
    place = Place(float(row["lat"]), float(row["lon"]))
    return Region(row["region"], row["title"], row["city"], row["continent"], place)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(line for line in lines if not line.startswith("#"))
