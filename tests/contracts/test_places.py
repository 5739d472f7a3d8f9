"""Points on the earth, and what distance is expected to cost."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.places import Place, distance_km, prior_rtt_ms

places = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))
HALF_ROUND_KM = math.pi * 6371.0088


@given(places, places)
def test_distance_is_a_distance(a: Place, b: Place) -> None:
    assert distance_km(a, a) == 0.0
    assert distance_km(a, b) == pytest.approx(distance_km(b, a), abs=1e-6)
    assert 0 <= distance_km(a, b) <= HALF_ROUND_KM + 1e-6


@given(places, places, places)
def test_no_way_around_is_shorter(a: Place, b: Place, c: Place) -> None:
    assert distance_km(a, c) <= distance_km(a, b) + distance_km(b, c) + 1e-3


@given(places, places)
def test_a_round_trip_takes_time_and_more_the_further(a: Place, b: Place) -> None:
    assert prior_rtt_ms(a, b) >= 1.0
    assert prior_rtt_ms(a, b) >= distance_km(a, b) / 100.0


@pytest.mark.parametrize(
    ("a", "b", "kilometres"),
    [
        (Place(53.35, -6.26), Place(50.11, 8.68), 1090),
        (Place(39.04, -77.49), Place(35.68, 139.69), 10900),
        (Place(90, 0), Place(-90, 0), 20015),
        (Place(0, 179.5), Place(0, -179.5), 111),
    ],
)
def test_known_distances(a: Place, b: Place, kilometres: float) -> None:
    assert distance_km(a, b) == pytest.approx(kilometres, rel=0.01)


@pytest.mark.parametrize(("lat", "lon"), [(91, 0), (-91, 0), (0, 181), (0, -181), (math.nan, 0), (0, math.inf)])
def test_a_place_off_the_earth_is_refused(lat: float, lon: float) -> None:
    with pytest.raises(ValueError, match="latitude"):
        Place(lat, lon)
    if math.isfinite(lat + lon):
        with pytest.raises(msgspec.ValidationError, match="latitude"):
            msgspec.json.decode(f'{{"lat": {lat}, "lon": {lon}}}', type=Place)
