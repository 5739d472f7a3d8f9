"""What a record of a GeoIP database says of a place. Two schemas are read:

- GeoIP2's, of MaxMind's City and Enterprise databases and of DB-IP's own: `location.latitude`, `location.longitude`,
  `location.accuracy_radius` and, of some, `traits.connection_type` and `traits.user_type`;
- the flat one, in which others pack DB-IP's data: `latitude` and `longitude`, numbers or texts.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.places import Place
from router.places.located import Located

FIXED_ERROR_KM = 10.0
CELLULAR_ERROR_KM = 200.0
"""Median errors of the databases of four vendors: 3 to 16 km in fixed networks, 179 to 207 km in mobile ones ("Lost in
the Prefix", arXiv:2605.21937)."""

_NOTHING: Mapping[str, object] = {}


def located(record: object) -> Located | None:
    """None for a record without a point on earth.

    A radius in the record is believed (MaxMind: two thirds of the addresses lie within), but no record places a mobile
    phone better than mobile phones are placed.
    """
    if not isinstance(record, dict):
        return None
    location = _part(record, "location") or record
    place = _place(location.get("latitude"), location.get("longitude"))
    return Located(place, _error_km(location, _part(record, "traits")), "geoip") if place is not None else None


def _place(latitude: object, longitude: object) -> Place | None:
    if not isinstance(latitude, int | float | str) or not isinstance(longitude, int | float | str):
        return None
    try:
        return Place(float(latitude), float(longitude))
    except ValueError:
        return None


def _error_km(location: Mapping[str, object], traits: Mapping[str, object]) -> float:
    told = location.get("accuracy_radius")
    radius_km = float(told) if isinstance(told, int | float) and told > 0 else None
    if traits.get("connection_type") == "Cellular" or traits.get("user_type") == "cellular":
        return max(radius_km or 0.0, CELLULAR_ERROR_KM)
    return radius_km or FIXED_ERROR_KM


def _part(record: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = record.get(name)
    return found if isinstance(found, dict) else _NOTHING
