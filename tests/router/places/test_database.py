"""One file: looked up as MaxMind's own reader does, or refused with what it is instead."""

from __future__ import annotations

import importlib.util
import os
import random
import tempfile
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import maxminddb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.places import Place
from router.places import database as databases_module
from router.places.client_address import Address
from router.places.database import Database, DatabaseError, open_database
from router.places.located import Located
from router.places.records import located
from tests.router.places.databases import BERLIN_BY_PHONE, LONDON, NETWORK_OF_SOMEBODY, PARIS_FLAT, TOKYO, city

SMALL = city({"81.2.69.0/24": LONDON, "133.11.0.0/16": TOKYO, "2001:200::/32": TOKYO})
anybody = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)


def opened(folder: Path, content: bytes) -> Database:
    path = folder / "city.mmdb"
    path.write_bytes(content)
    return open_database(path)


def geolite() -> Path:
    """The database inside the package `maxminddb-geolite2`, read without that package's global reader."""
    spec = importlib.util.find_spec("_maxminddb_geolite2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the GeoLite2 database is not installed: pip install 'foothill[geo]'")
    return Path(spec.submodule_search_locations[0]) / "GeoLite2-City.mmdb"


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("81.2.69.142", Place(51.5142, -0.0931)),
        ("133.11.0.1", Place(35.685, 139.7514)),
        ("2001:200::1", Place(35.685, 139.7514)),
        ("81.2.70.1", None),
        ("10.0.0.1", None),
        ("2001:db8::1", None),
    ],
)
def test_an_address_has_the_place_of_its_network(tmp_path: Path, address: str, place: Place | None) -> None:
    found = opened(tmp_path, SMALL).locate(ip_address(address))
    assert (found.place if found else None) == place


def test_mobile_networks_and_flat_records_are_read(tmp_path: Path) -> None:
    database = opened(tmp_path, city({"1.0.0.0/24": BERLIN_BY_PHONE, "2.0.0.0/24": PARIS_FLAT}))
    assert database.locate(ip_address("1.0.0.1")) == Located(Place(52.5196, 13.4069), 200.0, "geoip")
    assert database.locate(ip_address("2.0.0.1")) == Located(Place(48.8534, 2.3488), 10.0, "geoip")


def test_a_database_of_one_family_places_nobody_of_the_other(tmp_path: Path) -> None:
    old = opened(tmp_path, city({"81.2.69.0/24": PARIS_FLAT}, kind="city ipv4", ip_version=4))
    assert old.locate(ip_address("81.2.69.1")) is not None
    assert old.locate(ip_address("::5102:4501")) is None
    new = opened(tmp_path, city({"2001:200::/32": PARIS_FLAT}, kind="city ipv6"))
    assert new.locate(ip_address("81.2.69.1")) is None
    assert new.title == "'city ipv6' built 2023-11-14"


@given(anybody)
def test_it_finds_what_the_formats_own_reader_finds(address: Address) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "city.mmdb"
        path.write_bytes(SMALL)
        with maxminddb.open_database(path, maxminddb.MODE_MEMORY) as reader:
            assert open_database(path).locate(address) == located(reader.get(address))


def test_it_finds_in_a_real_one_what_the_formats_own_reader_finds() -> None:
    """Nodes of 28 bits, whose middle byte is shared."""
    database, rng = open_database(geolite()), random.Random(1)
    addresses: list[Address] = [IPv4Address(rng.getrandbits(32)) for _ in range(300)]
    addresses += [IPv6Address(0x2001 << 112 | rng.getrandbits(112)) for _ in range(300)]
    with maxminddb.open_database(geolite(), maxminddb.MODE_MMAP) as reader:
        for address in addresses:
            assert database.locate(address) == located(reader.get(address))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has 0 bytes"),
        (b"no database", "is no database"),
        (b"\xab\xcd\xefMaxMind.com", "is no database"),
        (SMALL[:-40], "is no database"),
        (SMALL[len(SMALL) // 2 :], "is no database"),
        (city({"1.0.0.0/24": NETWORK_OF_SOMEBODY}, kind="GeoLite2-ASN"), "'GeoLite2-ASN'.*no coordinates"),
        (city({"1.0.0.0/24": {"country": {"iso_code": "AU"}}}, kind="City"), "'City'.*no coordinates"),
    ],
)
def test_what_is_no_database_of_places_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(DatabaseError, match=told):
        opened(tmp_path, content)


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("absent", "No such file"), ("pipe", "is no regular file"), (".", "directory")):
        with pytest.raises(DatabaseError, match=told):
            open_database(tmp_path / name)
    monkeypatch.setattr(databases_module, "MAX_BYTES", 100)
    with pytest.raises(DatabaseError, match=r"has \d+ bytes; a database has some, and 100 at most"):
        opened(tmp_path, SMALL)


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(0, len(SMALL) - 1),
    damage=st.binary(min_size=1, max_size=60),
    cut=st.one_of(st.just(len(SMALL)), st.integers(0, len(SMALL))),
)
def test_damage_is_refused_or_costs_some_addresses_their_place(start: int, damage: bytes, cut: int) -> None:
    content = bytearray(SMALL)
    content[start : start + len(damage)] = damage
    with tempfile.TemporaryDirectory() as folder:
        try:
            database = opened(Path(folder), bytes(content[:cut]))
            database.locate(IPv4Address("81.2.69.142"))
            database.locate(IPv6Address("2001:200::1"))
        except DatabaseError:
            pass


@pytest.mark.assets
def test_the_vendors_test_database_is_read() -> None:
    assets = os.environ.get("FOOTHILL_ASSETS")
    if not assets:
        pytest.skip("set FOOTHILL_ASSETS to the directory of the shared assets")
    database = open_database(Path(assets) / "geo" / "GeoLite2-City-Test.mmdb")
    assert database.locate(ip_address("81.2.69.142")) == Located(Place(51.5142, -0.0931), 10.0, "geoip")
