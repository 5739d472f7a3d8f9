"""Where the demo's clients are: public addresses drawn at random and looked up in a real GeoIP database."""

from __future__ import annotations

import importlib.util
import ipaddress
import random
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import msgspec

from contracts.places import Place
from foothill.rooms import install
from runtime.regions import RegionTable

LEAST_COUNTRIES = 30
_LARGEST_PART = 8
_DRAWS_PER_CLIENT = 2000


class GeoDatabaseError(Exception):
    """No GeoIP database, or none that can be read. The message says what to install."""


class ClientPlace(msgspec.Struct, frozen=True):
    """One client: its public IPv4 address, where that is, and the name of the region nearest to it."""

    address: str
    country: str
    city: str
    place: Place
    region: str


def database_path(find: Callable[[str], ModuleSpec | None] = importlib.util.find_spec) -> Path:
    """The city database of the `geo` extra (GeoLite2 of 2018, CC BY-SA 4.0). Raises GeoDatabaseError."""
    found = find("_maxminddb_geolite2")
    path = Path(found.origin).with_name("GeoLite2-City.mmdb") if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise GeoDatabaseError(f"No GeoIP city database is installed. In Foothill's folder type: {install('geo')}")
    return path


def sample(count: int, seed: int, table: RegionTable, database: Path) -> tuple[ClientPlace, ...]:
    """`count` clients with distinct addresses; the same for the same seed, table and database.

    Addresses are drawn as evenly as they are allocated, except that no country gets more than an eighth (every third
    address would be in the United States) and that at least 30 countries take part (of 30 clients or more).
    Raises GeoDatabaseError for a file that is no city database, or one with too few countries.
    """
    most = max(1, count // _LARGEST_PART)
    taken: dict[str, ClientPlace] = {}
    by_country: Counter[str] = Counter()
    for client in _draw(random.Random(seed), count * _DRAWS_PER_CLIENT, table, database):
        kept_for_others = max(0, min(LEAST_COUNTRIES, count) - len(by_country))
        is_new = client.country not in by_country
        has_room = by_country[client.country] < most and count - len(taken) > kept_for_others
        if client.address not in taken and (is_new or has_room):
            by_country[client.country] += 1
            taken[client.address] = client
            if len(taken) == count:
                return tuple(taken.values())
    raise GeoDatabaseError(f"{database} knows only {len(by_country)} countries; a worldwide city database is needed.")


def _draw(rng: random.Random, draws: int, table: RegionTable, database: Path) -> Iterator[ClientPlace]:
    try:
        import maxminddb
    except ImportError as error:
        raise GeoDatabaseError(
            f"GeoIP lookups need maxminddb. In Foothill's folder type: {install('router')}"
        ) from error
    try:
        with maxminddb.open_database(str(database)) as reader:
            for _ in range(draws):
                address = ipaddress.IPv4Address(rng.getrandbits(32))
                if address.is_global and not address.is_multicast:
                    yield from _located(str(address), reader.get(str(address)), table)
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        raise GeoDatabaseError(f"{database} cannot be read: {error}") from error


def _located(address: str, record: Any, table: RegionTable) -> Iterator[ClientPlace]:
    """Nothing for an address without country or place."""
    if not isinstance(record, dict):
        return
    country = record.get("country", {}).get("iso_code")
    location = record.get("location", {})
    if country and "latitude" in location and "longitude" in location:
        place = Place(location["latitude"], location["longitude"])
        city = record.get("city", {}).get("names", {}).get("en", "")
        yield ClientPlace(address, country, city, place, table.nearest_region(place).name)
