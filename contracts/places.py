"""Points on the earth and what distance costs."""

from __future__ import annotations

import math

import msgspec

_EARTH_RADIUS_KM = 6371.0088
_FIBRE_KM_PER_MS = 100.0
_PATH_STRETCH = 1.6


class Place(msgspec.Struct, frozen=True):
    """Latitude and longitude in degrees (WGS 84)."""

    lat: float
    lon: float

    def __post_init__(self) -> None:
        if not (-90 <= self.lat <= 90 and -180 <= self.lon <= 180):
            raise ValueError(f"({self.lat}, {self.lon}) is not a latitude in -90..90 and a longitude in -180..180.")


def distance_km(a: Place, b: Place) -> float:
    """Great-circle distance (haversine, mean earth radius of IUGG)."""
    lat_a, lat_b = math.radians(a.lat), math.radians(b.lat)
    half_lat, half_lon = (lat_b - lat_a) / 2, math.radians(b.lon - a.lon) / 2
    chord = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(chord)))


def prior_rtt_ms(a: Place, b: Place) -> float:
    """What a round trip is expected to take before anybody measured it.

    Light in fibre travels ~200 km/ms, so a round trip costs 1 ms per 100 km of cable; cables are longer than great
    circles (stretch 1.6 fits Microsoft's published inter-region round-trip times), and no path takes less than 1 ms.
    """
    return 1.0 + distance_km(a, b) * _PATH_STRETCH / _FIBRE_KM_PER_MS
