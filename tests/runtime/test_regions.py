"""The table of round-trip times that comes with the package."""

from __future__ import annotations

import itertools

import pytest

from contracts.places import Place, prior_rtt_ms
from contracts.topics import NODE_NAME
from runtime.regions import SAME_REGION_RTT_MS, load

TABLE = load()


def test_every_pair_has_a_time_and_it_is_the_same_both_ways() -> None:
    assert 16 <= len(TABLE.regions) <= 24
    for a, b in itertools.combinations(TABLE.regions, 2):
        assert 5 <= TABLE.rtt_ms(a, b) == TABLE.rtt_ms(b, a) <= 400
    assert TABLE.rtt_ms("japaneast", "japaneast") == SAME_REGION_RTT_MS


def test_the_times_are_the_published_ones() -> None:
    assert TABLE.rtt_ms("northeurope", "germanywestcentral") == 26.0
    assert TABLE.rtt_ms("northeurope", "eastus") == 72.0
    assert TABLE.rtt_ms("northeurope", "japaneast") == 232.5


def test_the_demo_s_places_and_every_continent_are_there() -> None:
    cities = {region.city for region in TABLE.regions.values()}
    assert {"Dublin", "Frankfurt", "Ashburn", "Tokyo"} <= cities
    continents = {region.continent for region in TABLE.regions.values()}
    assert continents == {"Africa", "Asia", "Europe", "North America", "Oceania", "South America"}
    assert all(NODE_NAME.fullmatch(name) for name in TABLE.regions)


@pytest.mark.parametrize(
    ("place", "city"),
    [
        (Place(45.1, 7.7), "Milan"),
        (Place(52.5, 13.4), "Frankfurt"),
        (Place(-33.9, 18.4), "Johannesburg"),
        (Place(37.3, -122.0), "San Francisco"),
        (Place(-36.8, 174.8), "Sydney"),
        (Place(66.0, -179.9), "Tokyo"),
    ],
)
def test_a_place_belongs_to_the_region_nearest_to_it(place: Place, city: str) -> None:
    assert TABLE.nearest_region(place).city == city


def test_unknown_regions_are_named() -> None:
    with pytest.raises(KeyError, match="atlantis"):
        TABLE.rtt_ms("atlantis", "eastus")
    with pytest.raises(KeyError, match="atlantis"):
        TABLE.rtt_ms("atlantis", "atlantis")


def test_the_prior_of_the_contracts_is_of_the_size_of_what_is_published() -> None:
    ratios = sorted(
        prior_rtt_ms(TABLE.regions[a].place, TABLE.regions[b].place) / TABLE.rtt_ms(a, b)
        for a, b in itertools.combinations(TABLE.regions, 2)
    )
    assert 0.6 < ratios[len(ratios) // 2] < 1.4
