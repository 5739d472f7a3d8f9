"""The spool on its thread: many at once, full disks, broken files, and never a failure of whoever puts something in."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from edge_node.spool import FILE, MOST_UNWRITTEN, Spool, SpoolAway
from edge_node.spool_file import SpoolConfig
from edge_node.spool_metrics import SpoolMetrics
from runtime.links.process.disk import RealDisk
from tests.edge_node.test_spool_file import NOW_S, doubtful, late


class Disk(RealDisk):
    """A disk with as much room as a test gives it."""

    def __init__(self) -> None:
        self.free = 1 << 40

    def free_bytes(self, path: Path) -> int:
        return self.free


class Spooled:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = Disk()
        self.made: list[Spool] = []
        self.registry = CollectorRegistry()

    def open(self, **config: Any) -> Spool:
        self.registry = CollectorRegistry()
        spool = Spool(
            self.directory,
            SpoolConfig(**config),
            SpoolMetrics(self.registry),
            lambda: NOW_S,
            reserve_bytes=1000,
            disk=self.disk,
        )
        self.made.append(spool)
        return spool

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"foothill_spool_{name}", labels) or 0.0


@pytest.fixture
async def spooled(tmp_path: Path) -> AsyncIterator[Spooled]:
    made = Spooled(tmp_path)
    yield made
    for spool in made.made:
        await spool.close()


async def test_many_at_once_are_all_kept_and_counted(spooled: Spooled) -> None:
    spool = spooled.open()
    assert all(await asyncio.gather(*(spool.put(doubtful(f"r{at}")) for at in range(MOST_UNWRITTEN))))
    assert spooled.count("spooled_total") == spooled.count("inputs") == MOST_UNWRITTEN
    assert spooled.count("bytes") > 3 * MOST_UNWRITTEN
    first = await spool.next()
    assert first is not None
    await spool.answer(first, late(first))
    assert (spooled.count("delivered_total"), spooled.count("answers")) == (1, 1)


async def test_more_than_the_disk_can_follow_is_not_kept_in_memory(spooled: Spooled) -> None:
    spool = spooled.open()
    told = await asyncio.gather(*(spool.put(doubtful(f"r{at}")) for at in range(MOST_UNWRITTEN + 7)))
    assert told.count(False) == 7
    assert spooled.count("dropped_total", reason="busy") == 7


async def test_a_caller_that_leaves_takes_nothing_with_it(spooled: Spooled) -> None:
    spool = spooled.open()
    leaving = asyncio.create_task(spool.put(doubtful("r1")))
    staying = asyncio.create_task(spool.put(doubtful("r2")))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying
    assert await spool.find("", "r1") is not None


async def test_a_full_disk_is_told_once_and_serving_goes_on(spooled: Spooled, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spool = spooled.open()
    await spool.put(doubtful("before"))
    spooled.disk.free = 900
    for at in range(5):
        assert not await spool.put(doubtful(f"r{at}"))
        assert await spool.next() == doubtful("before")
    assert spooled.count("dropped_total", reason="disk") == 5
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    spooled.disk.free = 1 << 40
    assert await spool.put(doubtful("after"))
    assert "again" in caplog.records[-1].message


async def test_a_directory_that_takes_no_file_is_as_good_as_a_full_disk(
    spooled: Spooled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).mkdir()
    spool = spooled.open()
    assert [await spool.put(doubtful("r1")), await spool.put(doubtful("r2"))] == [False, False]
    with pytest.raises(SpoolAway):
        await spool.next()
    assert len(caplog.records) == 1


def _overwrite(path: Path) -> None:
    path.write_bytes(b"\xff" * 20_000)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [_overwrite, _cut])
async def test_a_broken_file_is_set_aside_and_the_spool_begins_anew(
    spooled: Spooled, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spool = spooled.open()
    for at in range(20):
        await spool.put(doubtful(f"r{at}", b"x" * 3000))
    await spool.close()
    spooled.made.clear()
    damage(tmp_path / FILE)
    again = spooled.open()
    assert await again.put(doubtful("new"))
    assert (tmp_path / f"{FILE}.bad").exists()
    assert spooled.count("dropped_total", reason="corrupt") == 1
    assert "begun anew" in caplog.text
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_what_killed_processes_left_open_is_read(spooled: Spooled, tmp_path: Path) -> None:
    """A database whose WAL was never folded in, as after SIGKILL, with a transaction that was not committed."""
    spool = spooled.open()
    await spool.put(doubtful("r1"))
    half = tmp_path / "copy"
    half.mkdir()
    db = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE inputs SET request_id = 'r2'")
    for name in (FILE, f"{FILE}-wal"):
        (half / name).write_bytes((tmp_path / name).read_bytes())
    db.close()
    left = Spooled(half)
    other = left.open()
    assert await other.find("", "r1") == doubtful("r1")
    assert await other.find("", "r2") is None
    await other.close()


async def test_after_it_was_closed_nothing_is_kept(spooled: Spooled) -> None:
    spool = spooled.open()
    await spool.close()
    assert not await spool.put(doubtful("r1"))
    spooled.made.clear()
