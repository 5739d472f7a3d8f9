"""Snapshots on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_node.cameras.snapshots.album import Album
from edge_node.cameras.snapshots.config import SnapshotsConfig

MIB = 1 << 20
DAY_S = 86_400.0


class Clock:
    now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def album(directory: Path, clock: Clock | None = None, **keys: float) -> Album:
    made = Album(directory / "album", SnapshotsConfig(**keys), clock or Clock())  # type: ignore[arg-type]
    made.open()
    return made


def test_what_was_put_is_had_again_and_nothing_else(tmp_path: Path) -> None:
    kept = album(tmp_path)
    kept.put("door", "door-1-1", b"picture")
    assert kept.get("door", "door-1-1") == b"picture"
    assert kept.get("door", "door-1-2") is None
    assert kept.get("yard", "door-1-1") is None
    assert kept.taken_bytes == 7
    assert stat.S_IMODE((tmp_path / "album" / "door" / "door-1-1.jpg").stat().st_mode) == 0o640


def test_the_oldest_give_way_to_the_newest(tmp_path: Path) -> None:
    kept = album(tmp_path, keep_bytes=MIB)
    for number in range(6):
        kept.put("door", f"e-{number}", bytes(MIB // 4))
    assert [kept.get("door", f"e-{number}") is not None for number in range(6)] == [False] * 2 + [True] * 4
    assert kept.taken_bytes == MIB


def test_the_old_go_after_their_days(tmp_path: Path) -> None:
    clock = Clock()
    kept = album(tmp_path, clock, keep_days=2)
    kept.put("door", "e-1", b"old")
    clock.now_s += 2.5 * DAY_S
    kept.put("door", "e-2", b"new")
    assert (kept.get("door", "e-1"), kept.get("door", "e-2")) == (None, b"new")


def test_the_next_life_finds_them_and_takes_away_what_is_half_written(tmp_path: Path) -> None:
    clock = Clock()
    first = album(tmp_path, clock, keep_bytes=MIB)
    for number in range(3):
        first.put("door", f"e-{number}", bytes(MIB // 4))
        os.utime(tmp_path / "album" / "door" / f"e-{number}.jpg", (clock.now_s - 9 + number,) * 2)
    half = tmp_path / "album" / "door" / "e-9.part"
    half.write_bytes(b"half")
    second = album(tmp_path, clock, keep_bytes=MIB)
    assert not half.exists()
    assert second.taken_bytes == 3 * MIB // 4
    second.put("yard", "y-1", bytes(MIB // 2))
    assert second.get("door", "e-0") is None
    assert second.get("door", "e-1") is not None


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "A", "x" * 101, "e\0"])
def test_what_is_no_name_reaches_no_file(tmp_path: Path, name: str) -> None:
    kept = album(tmp_path)
    assert kept.get("door", name) is None
    assert kept.get(name, "e-1") is None
    with pytest.raises(ValueError, match="name no event"):
        kept.put("door", name, b"")


def test_a_disk_that_refuses_leaves_nothing_half_done(tmp_path: Path) -> None:
    kept = album(tmp_path)
    (tmp_path / "album" / "door").write_text("a file where a directory belongs")
    with pytest.raises(OSError, match="door"):
        kept.put("door", "e-1", b"picture")
    assert kept.taken_bytes == 0
