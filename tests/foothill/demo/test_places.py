"""Client addresses from a real GeoIP database."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from foothill.demo import places
from foothill.demo.places import ClientPlace, GeoDatabaseError, database_path
from runtime.regions import load

TABLE = load()


@pytest.fixture(scope="module")
def database() -> Path:
    try:
        return database_path()
    except GeoDatabaseError as error:
        pytest.skip(str(error))


def countries(clients: tuple[ClientPlace, ...]) -> set[str]:
    return {client.country for client in clients}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clients_are_many_and_from_many_countries(database: Path, seed: int) -> None:
    clients = places.sample(120, seed, TABLE, database)
    assert len({client.address for client in clients}) == 120
    assert len(countries(clients)) >= 30
    assert all(ipaddress.ip_address(client.address).is_global for client in clients)
    for client in clients:
        assert client.region == TABLE.nearest_region(client.place).name
    assert max(sum(one.country == country for one in clients) for country in countries(clients)) <= 15
    continents = {TABLE.regions[client.region].continent for client in clients}
    assert {"Europe", "North America", "Asia"} <= continents


def test_the_same_seed_gives_the_same_clients(database: Path) -> None:
    assert places.sample(40, 7, TABLE, database) == places.sample(40, 7, TABLE, database)
    assert places.sample(40, 7, TABLE, database) != places.sample(40, 8, TABLE, database)


def test_few_clients_are_each_from_another_country(database: Path) -> None:
    assert len(countries(places.sample(30, 1, TABLE, database))) == 30


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(b"no database")
    with pytest.raises(GeoDatabaseError, match=r"broken\.mmdb"):
        places.sample(10, 1, TABLE, broken)
    with pytest.raises(GeoDatabaseError, match=r"absent\.mmdb"):
        places.sample(10, 1, TABLE, tmp_path / "absent.mmdb")


def test_without_the_extra_the_error_says_what_to_type() -> None:
    with pytest.raises(GeoDatabaseError, match=r"pip install '\.\[geo\]'"):
        database_path(lambda _: None)
