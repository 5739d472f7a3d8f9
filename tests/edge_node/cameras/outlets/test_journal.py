"""What waits to be told outlives the process; a disk that fails costs nothing while the process lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_node.cameras.outlets.journal import Journal
from tests.edge_node.cameras.small_disk import SmallDisk


async def until(true: Callable[[], object]) -> None:
    async def wait() -> None:
        while not true():  # noqa: ASYNC110 - the disk has no event for a test
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 20)


async def left_in(path: Path) -> list[bytes] | None:
    journal = Journal(path)
    left = await journal.open()
    await journal.close()
    return left if left is None else [message.body for message in left]


async def test_what_is_taken_at_once_never_touches_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "outlets" / "mqtt.db"
    journal = Journal(path, gather_s=0.05)
    assert await journal.open() is None
    journal.forget([journal.keep(b"quick").number])
    await asyncio.sleep(0.2)
    assert not path.exists()
    journal.keep(b"slow")
    await until(path.exists)
    await until(lambda: not journal.unkept)
    await journal.close()
    assert await left_in(path) == [b"slow"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_numbers_rise_from_life_to_life(tmp_path: Path) -> None:
    first = Journal(tmp_path / "a.db")
    await first.open()
    for body in (b"1", b"2", b"3"):
        first.keep(body)
    await first.close()
    second = Journal(tmp_path / "a.db")
    left = await second.open()
    assert left is not None
    fresh = second.keep(b"4")
    assert [message.number for message in (*left, fresh)] == sorted(message.number for message in (*left, fresh))
    second.forget([left[1].number])
    await second.close()
    assert await left_in(tmp_path / "a.db") == [b"1", b"3", b"4"]


async def test_room_is_given_back_once_nothing_waits(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db", gather_s=0.0)
    await journal.open()
    numbers = [journal.keep(bytes(1000)).number for _ in range(3000)]
    await until(lambda: not journal.unkept)
    journal.forget(numbers)
    await journal.close()
    assert (tmp_path / "a.db").stat().st_size < 1 << 20


async def test_a_file_that_is_no_journal_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 100)
    journal = Journal(path)
    assert await journal.open() == []
    journal.keep(b"1")
    await journal.close()
    assert await left_in(path) == [b"1"]
    assert path.with_name("a.db.bad").exists()
    assert caplog.text.count("begun anew") == 1


async def test_a_disk_that_is_away_at_the_start_is_used_once_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "outlets" / "a.db"
    earlier = Journal(path)
    await earlier.open()
    earlier.keep(b"1")
    await earlier.close()
    path.parent.rename(tmp_path / "taken-out")
    (tmp_path / "outlets").write_text("in the way")
    journal = Journal(path, gather_s=0.0)
    assert await journal.open() is None
    kept, over = journal.keep(b"2"), journal.keep(b"3")
    await until(lambda: "in memory alone" in caplog.text)
    assert journal.unkept == 2
    journal.forget([over.number])
    (tmp_path / "outlets").unlink()
    (tmp_path / "taken-out").rename(path.parent)
    await until(lambda: "written again" in caplog.text)
    assert kept.number > 0
    await journal.close()
    assert await left_in(path) == [b"1", b"2"]


@pytest.mark.parametrize("is_full_first", [True, False])
async def test_a_full_disk_costs_nothing_once_there_is_room_again(
    small_disk: SmallDisk, caplog: pytest.LogCaptureFixture, is_full_first: bool
) -> None:
    journal = Journal(small_disk.path / "outlets" / "a.db", gather_s=0.0)
    await journal.open()
    bodies = [b"%d" % number * 1000 for number in range(20)]
    if not is_full_first:
        early = [journal.keep(body) for body in bodies[:5]]
        await until(lambda: not journal.unkept)
        journal.forget([early[0].number])
    small_disk.fill()
    late = [journal.keep(body) for body in bodies[5:]]
    await until(lambda: "in memory alone" in caplog.text)
    journal.forget([late[0].number])
    small_disk.make_room()
    await until(lambda: not journal.unkept)
    await journal.close()
    wanted = bodies[6:] if is_full_first else [*bodies[1:5], *bodies[6:]]
    assert await left_in(small_disk.path / "outlets" / "a.db") == wanted
