"""Places by address, from a real database file; without one, no place and a warning; a wrong one is refused."""

from __future__ import annotations

import importlib.util
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from contracts.places import Place, distance_km
from router.geo import Geo
from runtime.links.process.settings import SettingsError


def geolite() -> Path:
    """The database inside the package `maxminddb-geolite2`, read without that package's global reader."""
    spec = importlib.util.find_spec("_maxminddb_geolite2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the GeoLite2 database is not installed: pip install 'foothill[geo]'")
    return Path(spec.submodule_search_locations[0]) / "GeoLite2-City.mmdb"


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("8.8.8.8", Place(37.75, -97.8)),
        ("81.2.69.142", Place(51.5, -0.1)),
        ("133.11.0.1", Place(35.7, 139.7)),
        ("2001:200::1", Place(35.7, 139.7)),
    ],
)
def test_a_public_address_has_a_place(address: str, near: Place) -> None:
    geo = Geo.open(str(geolite()))
    place = geo.place(ip_address(address))
    geo.close()
    assert place is not None
    assert distance_km(place, near) < 600


def test_a_private_address_and_nobody_have_none() -> None:
    geo = Geo.open(str(geolite()))
    assert geo.place(ip_address("10.0.0.1")) is None
    assert geo.place(None) is None
    geo.close()


def test_without_a_file_nothing_has_a_place_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert Geo.open("").place(ip_address("8.8.8.8")) is None
    assert "no geoip_database is set" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"no database", b"\xab\xcd\xefMaxMind.com"])
def test_a_file_that_is_named_and_missing_or_damaged_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"geoip_database .*bad.mmdb cannot be used .* leave geoip_database empty"):
        Geo.open(str(path))


def test_a_file_damaged_inside_is_a_warning_at_the_first_lookup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(geolite().read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 3] = b"\xff" * (len(data) // 3)
    path = tmp_path / "torn.mmdb"
    path.write_bytes(data)
    geo = Geo.open(str(path))
    for number in range(1, 224):
        place = geo.place(ip_address(f"{number}.8.8.8"))
        assert place is None or isinstance(place, Place)
    geo.close()
    assert caplog.text.count("a lookup failed") <= 1


@pytest.mark.assets
def test_the_vendors_test_database_is_read() -> None:
    assets = os.environ.get("FOOTHILL_ASSETS")
    if not assets:
        pytest.skip("set FOOTHILL_ASSETS to the directory of the shared assets")
    geo = Geo.open(str(Path(assets) / "geo" / "GeoLite2-City-Test.mmdb"))
    place = geo.place(ip_address("81.2.69.142"))
    geo.close()
    assert place == Place(51.5142, -0.0931)
