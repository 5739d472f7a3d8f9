"""Records of either schema: where, and how far off that may be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.places import Place
from router.places.located import Located
from router.places.records import CELLULAR_ERROR_KM, FIXED_ERROR_KM, located

AT = {"latitude": 51.5, "longitude": -0.1}
LONDON = Place(51.5, -0.1)

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["location", "latitude", "longitude", "traits", "accuracy_radius", "user_type"]), inner
        ),
    ),
)


@pytest.mark.parametrize(
    ("record", "error_km"),
    [
        ({"location": AT}, FIXED_ERROR_KM),
        ({"location": AT | {"accuracy_radius": 1000}}, 1000.0),
        ({"location": AT | {"accuracy_radius": 0}}, FIXED_ERROR_KM),
        ({"location": AT, "traits": {"connection_type": "Cable/DSL"}}, FIXED_ERROR_KM),
        ({"location": AT, "traits": {"connection_type": "Cellular"}}, CELLULAR_ERROR_KM),
        ({"location": AT | {"accuracy_radius": 5}, "traits": {"user_type": "cellular"}}, CELLULAR_ERROR_KM),
        ({"location": AT | {"accuracy_radius": 500}, "traits": {"user_type": "cellular"}}, 500.0),
        ({"city": "London", "country_code": "GB"} | AT, FIXED_ERROR_KM),
        ({"latitude": "51.5", "longitude": "-0.1"}, FIXED_ERROR_KM),
    ],
)
def test_a_record_tells_a_place_and_its_error(record: object, error_km: float) -> None:
    assert located(record) == Located(LONDON, error_km, "geoip")


@pytest.mark.parametrize(
    "record",
    [
        None,
        "London",
        {},
        {"location": {"time_zone": "Europe/London"}},
        {"location": {"latitude": 51.5}},
        {"latitude": "", "longitude": ""},
        {"latitude": "nan", "longitude": "0"},
        {"latitude": math.inf, "longitude": 0.0},
        {"latitude": 91.0, "longitude": 0.0},
        {"autonomous_system_number": 64496},
    ],
)
def test_a_record_without_a_point_on_earth_tells_none(record: object) -> None:
    assert located(record) is None


@given(anything)
def test_any_record_is_read(record: Any) -> None:
    found = located(record)
    assert found is None or found.error_km > 0
