"""Clips on a disk that fills up, fails, loses power: never half a clip, never one that should have stayed."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from edge_node.cameras.recording.clip import Clip, ClipName
from edge_node.cameras.recording.config import Limits, RecordingConfig
from edge_node.cameras.recording.library import Library
from edge_node.cameras.recording.shelf import NoRoom, Shelf
from runtime.links.process.disk import REAL_DISK, Disk, RealDisk
from tests.edge_node.cameras.recording.footage import NOW_S
from tests.edge_node.power_disk import HOWS, Call, How, Kind, Platter, RecordingDisk

MIB = 1 << 20
DAY_S = 86_400.0


class Clocks:
    def __init__(self) -> None:
        self.wall_s, self.running_s = NOW_S, 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.running_s += seconds


class Shelved:
    """A shelf and clips of any bytes on it, one a minute."""

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk = REAL_DISK,
        cameras: Mapping[str, Limits] | None = None,
        reserve_bytes: int = 0,
        keep_bytes: int = 1 << 40,
        keep_days: float = 14.0,
    ) -> None:
        self.directory = directory
        self.clocks = Clocks()
        config = RecordingConfig(reserve_bytes=reserve_bytes, keep_bytes=keep_bytes, keep_days=keep_days)
        self.shelf = Shelf(
            directory,
            config,
            cameras or {},
            disk=disk,
            wall=lambda: self.clocks.wall_s,
            clock=lambda: self.clocks.running_s,
        )
        self.shelf.load()
        self.library = Library(self.shelf)

    def put(self, event: str, size: int = 300, *, camera: str = "yard", at_s: float | None = None) -> ClipName:
        self.clocks.pass_(60)
        part = self.shelf.begin(camera)
        try:
            for piece in pieces(event, size):
                part.write(piece)
            return self.shelf.place(part, self.clip(event, camera, part.bytes, part.sha256, at_s))
        except OSError:
            self.shelf.abandon(part)
            raise

    def clip(self, event: str, camera: str, size: int, sha256: str, at_s: float | None) -> Clip:
        from_s = self.clocks.wall_s if at_s is None else at_s
        return Clip(
            camera=camera, events=(event,), from_s=from_s, to_s=from_s + 1, seconds=1.0, codec="h264", width=160,
            height=120, pictures=25, bytes=size, sha256=sha256,
        )  # fmt: skip

    def events(self) -> list[str]:
        """The oldest first."""
        return [listed.clip.events[0] for listed in reversed(self.library.list().clips)]


def pieces(event: str, size: int) -> Iterator[bytes]:
    data = random.Random(event).randbytes(size)
    yield from (data[at : at + 100_000] for at in range(0, size, 100_000))


def assert_whole(directory: Path, shelf: Shelf) -> None:
    """Every clip is what stands beside it, and there is nothing else but what is known."""
    known = {str(kept.name) for kept in shelf.newest_first()}
    assert {str(path.relative_to(directory))[:-4] for path in directory.glob("*/*/*.mp4")} == known
    for kept in shelf.newest_first():
        clip, video = shelf.describe(kept.name), shelf.path_of(kept.name).read_bytes()
        assert len(video) == clip.bytes
        assert clip.sha256 in ("", hashlib.sha256(video).hexdigest())
        if not clip.sha256:
            assert video == b"".join(pieces(clip.events[0], len(video)))
    assert list((directory / ".writing").iterdir()) == []


class SmallDisk(RealDisk):
    """`size` bytes, of which others have `others`; what is in files of `directory` is taken."""

    def __init__(self, directory: Path, size: int) -> None:
        self.directory, self.size, self.others = directory, size, 0

    def free_bytes(self, path: Path) -> int:
        used = sum(each.stat().st_size for each in self.directory.rglob("*") if each.is_file())
        return max(0, self.size - self.others - used)


def test_on_a_full_disk_the_oldest_clips_give_way(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, 12 * MIB)
    on = Shelved(tmp_path, disk=disk, reserve_bytes=4 * MIB)
    for number in range(20):
        on.put(f"e{number}", MIB + 1)
        assert disk.free_bytes(tmp_path) >= 4 * MIB
    assert on.events()[-1] == "e19"
    assert on.events() == [f"e{number}" for number in range(20 - len(on.events()), 20)]
    assert 4 <= len(on.events()) <= 7
    assert_whole(tmp_path, on.shelf)


def test_what_is_marked_gives_way_to_nothing(tmp_path: Path) -> None:
    on = Shelved(tmp_path, keep_bytes=16 * MIB)
    first = on.put("first", 4 * MIB)
    on.library.keep(str(first))
    on.put("second", 4 * MIB)
    for number in range(6):
        on.put(f"e{number}", 4 * MIB)
    assert on.events()[0] == "first"
    assert "second" not in on.events()
    on.library.keep(str(first), False)
    on.put("last", 4 * MIB)
    assert "first" not in on.events()


def test_nothing_goes_where_it_would_not_be_enough(tmp_path: Path) -> None:
    """Somebody else has filled the disk: what evidence there is must not go for nothing."""
    disk = SmallDisk(tmp_path, 20 * MIB)
    on = Shelved(tmp_path, disk=disk, reserve_bytes=8 * MIB)
    on.put("a", MIB)
    on.put("b", MIB)
    disk.others = 17 * MIB
    with pytest.raises(NoRoom, match="not enough"):
        on.put("c", MIB)
    assert on.events() == ["a", "b"]
    disk.others = 0
    on.put("d", MIB)
    assert on.events() == ["a", "b", "d"]


def test_a_clip_larger_than_all_may_be_is_not_written(tmp_path: Path) -> None:
    on = Shelved(tmp_path, keep_bytes=16 * MIB)
    with pytest.raises(NoRoom):
        on.put("large", 18 * MIB)
    assert list((tmp_path / ".writing").iterdir()) == []
    on.put("small")
    assert on.events() == ["small"]
    assert on.shelf.taken_bytes < 2000


def test_a_camera_with_bounds_of_its_own_pays_with_its_own_clips(tmp_path: Path) -> None:
    gate = Limits(on=True, pre_s=1, post_s=1, longest_s=9, ring_bytes=MIB, keep_bytes=16 * MIB)
    on = Shelved(tmp_path, cameras={"gate": gate})
    on.put("old", 9 * MIB)
    for number in range(8):
        on.put(f"g{number}", 4 * MIB, camera="gate")
    assert on.events() == ["old", "g5", "g6", "g7"]


def test_clips_go_after_their_days_and_not_by_a_clock_that_was_just_set(tmp_path: Path) -> None:
    on = Shelved(tmp_path, keep_days=2)
    kept = on.put("marked")
    on.library.keep(str(kept))
    on.put("old")
    on.put("before the clock was set", at_s=100.0)
    on.clocks.pass_(1.5 * DAY_S)
    on.put("young")
    on.clocks.wall_s += 40 * 365 * DAY_S
    assert on.shelf.expire() == 0
    on.clocks.pass_(60)
    assert on.shelf.expire() == 0
    on.clocks.wall_s -= 40 * 365 * DAY_S
    assert on.shelf.expire() == 0
    on.clocks.pass_(DAY_S)
    assert on.shelf.expire() == 1
    assert on.events() == ["before the clock was set", "marked", "young"]
    assert_whole(tmp_path, on.shelf)


def test_empty_days_leave_no_directories(tmp_path: Path) -> None:
    on = Shelved(tmp_path)
    on.library.delete(str(on.put("a")))
    assert [path.name for path in tmp_path.iterdir()] == [".writing"]


def test_the_next_life_knows_what_there_is(tmp_path: Path) -> None:
    on = Shelved(tmp_path)
    for number in range(5):
        on.put(f"e{number}", camera=("yard", "gate")[number % 2])
    on.library.keep(on.library.list().clips[-1].id)
    again = Shelved(tmp_path)
    assert again.events() == on.events() == ["e0", "e1", "e2", "e3", "e4"]
    assert again.shelf.newest_first() == on.shelf.newest_first()
    assert again.shelf.taken_bytes == on.shelf.taken_bytes
    assert again.shelf.taken_bytes == sum(path.stat().st_size for path in tmp_path.glob("*/*/*"))


def test_what_is_not_ours_is_left_alone_and_not_counted(tmp_path: Path) -> None:
    on = Shelved(tmp_path)
    name = on.put("a")
    day = name.below(tmp_path).parent
    for other in (day / "holiday.mp4", day / "notes.txt", tmp_path / "README", day / "999999-x.mp4"):
        other.write_bytes(b"x")
    again = Shelved(tmp_path)
    assert again.events() == ["a"]
    assert (day / "holiday.mp4").exists()


def test_text_that_cannot_be_read_costs_no_clip(tmp_path: Path) -> None:
    on = Shelved(tmp_path)
    first, second = on.put("a"), on.put("b")
    first.below(tmp_path).with_suffix(".json").write_bytes(b'{"camera"')
    second.below(tmp_path).with_suffix(".json").unlink()
    again = Shelved(tmp_path)
    assert again.events() == ["a", "b"]
    again.library.delete(str(first))
    assert again.events() == ["b"]


def test_what_a_crash_left_is_cleared_away(tmp_path: Path) -> None:
    on = Shelved(tmp_path)
    part = on.shelf.begin("yard")
    part.write(b"half")
    part.forget()
    day = tmp_path / "yard/2027-01-15"
    day.mkdir(parents=True)
    (day / "080000-e.json").write_text("{}")
    again = Shelved(tmp_path)
    assert again.events() == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


GROWING: tuple[Kind, ...] = ("open", "write", "sync file", "replace", "make_directory", "sync_directory")


@pytest.mark.parametrize("kind", GROWING)
def test_a_disk_that_refuses_one_kind_of_call_gets_no_clip_and_no_half_of_one(tmp_path: Path, kind: Kind) -> None:
    refuses = False

    def fails(call: Call, number: int) -> None:
        if refuses and call.kind == kind:
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

    on = Shelved(tmp_path, disk=RecordingDisk(tmp_path, fails))
    on.put("before")
    refuses = True
    with pytest.raises(OSError, match="Input/output"):
        on.put("refused", camera="gate")
    refuses = False
    on.put("after")
    assert on.events()[0] == "before"
    assert on.events()[-1] == "after"
    again = Shelved(tmp_path)
    assert_whole(tmp_path, again.shelf)
    assert {"before", "after"} <= set(again.events()) <= {"before", "refused", "after"}


def test_a_disk_that_fails_at_any_one_call_leaves_only_whole_clips(tmp_path: Path) -> None:
    number = 0
    while True:
        room = tmp_path / str(number)
        room.mkdir()
        failed, refused = False, ""

        def fails(call: Call, now: int, at: int = number) -> None:
            nonlocal failed, refused
            if now >= at and not failed and call.kind != "close":
                failed, refused = True, call.kind
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)

        _story(room, RecordingDisk(room, fails))
        assert refused == "unlink" or {p.stem for p in room.glob("*/*/*.json")} <= {
            p.stem for p in room.glob("*/*/*.mp4")
        }
        assert_whole(room, Shelved(room).shelf)
        if not failed:
            break
        number += 1
    assert number > 40


def _story(directory: Path, disk: Disk) -> dict[str, str]:
    """What a shelf does, with what was promised by when: ids of clips by their events."""
    safe: dict[str, str] = {}

    def attempt(step: Callable[[], object]) -> None:
        try:
            step()
        except (OSError, KeyError) as error:
            logging.getLogger(__name__).debug("a step failed: %s", error)

    def put(event: str) -> None:
        safe[event] = str(on.put(event))

    try:
        on = Shelved(directory, disk=disk)
    except OSError:
        on = Shelved(directory, disk=disk)
    attempt(lambda: put("a"))
    attempt(lambda: put("b"))
    attempt(lambda: on.shelf.keep(on.shelf.newest_first()[-1].name, True))
    attempt(lambda: on.shelf.remove(on.shelf.newest_first()[0].name))
    attempt(lambda: put("c"))
    return safe


def test_after_a_power_cut_at_any_call_there_are_only_whole_clips_and_all_that_were_promised(tmp_path: Path) -> None:
    """The disk as POSIX at its strictest leaves it: names and bytes that were not synced are anything."""
    played = tmp_path / "played"
    played.mkdir()
    disk = RecordingDisk(played)
    promised = _promises(played, disk)
    rng = random.Random(11)
    for number in range(len(disk.calls) + 1):
        platter = Platter()
        for call in disk.calls[:number]:
            platter.play(call)
        so_far = {event for event, at in promised.items() if at <= number}
        for how in HOWS:
            _assert_survives(platter, how, rng, tmp_path / f"{number}-{how}", so_far)


def _promises(directory: Path, disk: RecordingDisk) -> dict[str, int]:
    """By which call each clip had been promised."""
    on = Shelved(directory, disk=disk)
    promised = {}
    for event in ("a", "b", "c"):
        on.put(event)
        promised[event] = len(disk.calls)
        if event == "b":
            on.shelf.keep(on.shelf.newest_first()[-1].name, True)
    return promised


def _assert_survives(platter: Platter, how: How, rng: random.Random, room: Path, promised: set[str]) -> None:
    room.mkdir()
    platter.after(how, rng).write(room)
    again = Shelved(room)
    assert_whole(room, again.shelf)
    assert promised <= set(again.events())
    clips = {listed.clip.events[0]: listed.clip for listed in again.library.list().clips}
    assert all(clips[event].sha256 for event in promised), "the text of a promised clip is gone"
    again.put("next")
    assert_whole(room, again.shelf)
