"""Places by address while the database's file is replaced, broken, taken away and put back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from contracts.places import Place, distance_km
from router.places.geo import Geo
from runtime.links.process.settings import SettingsError
from tests.router.places.databases import LONDON, NETWORK_OF_SOMEBODY, TOKYO, city, move, put, write
from tests.router.places.test_database import geolite

ADDRESS = ip_address("81.2.69.142")
IN_LONDON, IN_TOKYO = Place(51.5142, -0.0931), Place(35.685, 139.7514)
FIRST, SECOND = city({"81.2.69.0/24": LONDON}), city({"81.2.69.0/24": TOKYO})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "city.mmdb"
    made.write_bytes(FIRST)
    return made


def place(geo: Geo, address: str = str(ADDRESS)) -> Place | None:
    located = geo.locate(ip_address(address))
    return located.place if located is not None else None


async def look_until_settled(geo: Geo) -> None:
    await geo.look()
    await geo.look()


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
    found = place(Geo.open(str(geolite())), address)
    assert found is not None
    assert distance_km(found, near) < 600


def test_a_private_address_and_nobody_have_none(path: Path) -> None:
    geo = Geo.open(str(path))
    assert place(geo, "10.0.0.1") is None
    assert geo.locate(None) is None


async def test_without_a_file_nothing_has_a_place_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    geo = Geo.open("")
    await look_until_settled(geo)
    assert place(geo) is None
    assert "no geoip_database is set" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"no database", FIRST[:-40]])
def test_a_file_that_is_named_and_missing_or_damaged_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"geoip_database .*bad.mmdb cannot be used.* leave geoip_database empty"):
        Geo.open(str(path))


def test_a_file_damaged_inside_is_one_warning_at_the_first_lookup(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = city({"81.2.69.0/24": LONDON, "133.11.0.0/16": {"location": {"latitude": 1.0, "longitude": 2.0, "a": "b"}}})
    at = sound.rindex(b"Aa")
    path.write_bytes(sound[:at] + b"\xff\xff" + sound[at + 2 :])
    geo = Geo.open(str(path))
    assert [place(geo, "133.11.0.1"), place(geo, "133.11.0.2"), place(geo)] == [None, None, IN_LONDON]
    assert caplog.text.count("a lookup failed") == 1


@pytest.mark.parametrize("replace", [put, write])
async def test_a_replaced_file_takes_over(
    path: Path, replace: Callable[[Path, bytes], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    geo = Geo.open(str(path))
    await look_until_settled(geo)
    assert caplog.text.count("took over") == 0
    replace(path, SECOND)
    assert place(geo) == IN_LONDON
    await look_until_settled(geo)
    assert place(geo) == IN_TOKYO
    assert caplog.text.count("took over") == 1


async def test_a_file_that_is_just_being_written_is_left_to_its_writer(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    geo = Geo.open(str(path))
    for length in range(100, len(SECOND), 200):
        write(path, SECOND[:length])
        await geo.look()
    write(path, SECOND)
    await look_until_settled(geo)
    assert place(geo) == IN_TOKYO
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (SECOND[:-40], "is no database"),
        (SECOND[: len(SECOND) // 2], "is no database"),
        (b"\x00" * 5000, "is no database"),
        (b"", "has 0 bytes"),
        (city({"1.0.0.0/24": NETWORK_OF_SOMEBODY}, kind="GeoLite2-ASN"), "'GeoLite2-ASN'"),
    ],
)
async def test_one_that_cannot_be_used_leaves_the_old_one_is_told_once_and_its_successor_taken(
    path: Path, content: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    geo = Geo.open(str(path))
    put(path, content)
    for _ in range(5):
        await geo.look()
        assert place(geo) == IN_LONDON
    (said,) = [record.getMessage() for record in caplog.records]
    assert told in said
    assert "'GeoLite2-City' built 2023-11-14, stays" in said
    assert "rename it to that name" in said
    put(path, SECOND)
    await look_until_settled(geo)
    assert place(geo) == IN_TOKYO


async def test_one_that_is_taken_away_leaves_the_old_one_and_counts_again_when_it_is_back(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    geo = Geo.open(str(path))
    away = path.with_suffix(".away")
    move(path, away)
    for _ in range(4):
        await geo.look()
        assert place(geo) == IN_LONDON
    assert [("No such file" in record.getMessage()) for record in caplog.records] == [True]
    caplog.clear()
    caplog.set_level(logging.INFO)
    move(away, path)
    await look_until_settled(geo)
    assert place(geo) == IN_LONDON
    assert "took over" in caplog.text


async def test_lookups_go_on_while_files_come_and_go(path: Path) -> None:
    geo = Geo.open(str(path))
    following = asyncio.create_task(geo.follow(every_s=0.002))
    seen: set[Place | None] = set()
    contents = [SECOND, b"garbage", FIRST, FIRST[:200], SECOND]
    for content in contents:
        put(path, content)
        for _ in range(20):
            seen.add(place(geo))
            await asyncio.sleep(0.001)
    for _ in range(500):
        if place(geo) == IN_TOKYO:
            break
        await asyncio.sleep(0.01)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    assert place(geo) == IN_TOKYO
    assert seen <= {IN_LONDON, IN_TOKYO}


async def test_a_file_cut_short_under_a_running_router_harms_nobody(path: Path) -> None:
    """What is mapped and cut short would end the process at the next lookup."""
    geo = Geo.open(str(path))
    with path.open("r+b") as file:
        file.truncate(0)
    assert place(geo) == IN_LONDON
