"""Recording on a disk that is full or fails: watching goes on, what cannot be kept is counted, and it starts again."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig
from edge_node.cameras.recording.metrics import DropReason
from edge_node.cameras.recording.part import RecordingPart
from runtime.links.process.disk import Disk, RealDisk, Writing
from tests.edge_node.cameras.recording.footage import NOW_S, Camera, film, frames


class Faulty(RealDisk):
    """`fault`: which call fails, with what. A write of `torn` bytes goes half-way first."""

    def __init__(self) -> None:
        self.fault: tuple[str, int] = ("", 0)
        self.free = 1 << 40

    def meet(self, call: str) -> None:
        if self.fault[0] == call:
            raise OSError(self.fault[1], os.strerror(self.fault[1]))

    def free_bytes(self, path: Path) -> int:
        self.meet("free_bytes")
        return self.free

    def open(self, path: Path, *, at: int = 0, mode: int = 0o644) -> Writing:
        self.meet("open")
        return _FaultyWriting(self, super().open(path, at=at, mode=mode))

    def replace(self, source: Path, target: Path) -> None:
        self.meet("replace")
        super().replace(source, target)


class _FaultyWriting:
    def __init__(self, disk: Faulty, real: Writing) -> None:
        self._disk = disk
        self._real = real

    def write(self, data: bytes) -> None:
        if self._disk.fault[0] == "write":
            self._real.write(data[: len(data) // 2])
        self._disk.meet("write")
        self._real.write(data)

    def sync(self) -> None:
        self._disk.meet("sync")
        self._real.sync()

    def close(self) -> None:
        self._real.close()


class Node:
    """Recording as a node runs it, with its thread, and one camera."""

    def __init__(self, directory: Path, disk: Disk, **config: object) -> None:
        settings = RecordingConfig(on=True, pre_s=1.0, post_s=1.0, reserve_bytes=1 << 20, **config)  # type: ignore[arg-type]
        self.directory = directory / "clips"
        self.part = RecordingPart(directory, settings, disk=disk, wall=lambda: NOW_S)
        ring = self.part.add("yard", CameraRecordingConfig())
        assert ring is not None
        self.camera = Camera(ring)
        self.part.start()

    def event(self, source: Path, event: str) -> None:
        """An event in the middle of what is played, and the end of its clip."""
        begun_s = self.camera.now_s
        self.camera.play(source)
        assert self.part.want("yard", event, begun_s + 3.0)

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end, (self.part.counts.clips, self.part.counts.dropped)
            time.sleep(0.01)

    def until_dropped(self, reason: DropReason, count: int) -> None:
        self.until(lambda: self.part.counts.dropped[reason] == count)

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("footage") / "source", seconds=6)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (("write", errno.ENOSPC), "no-room"),
        (("write", errno.EIO), "disk"),
        (("sync", errno.EIO), "disk"),
        (("open", errno.ENOSPC), "no-room"),
        (("open", errno.EROFS), "disk"),
        (("replace", errno.EIO), "disk"),
        (("free_bytes", errno.EIO), "disk"),
    ],
    ids=lambda given: "-".join(map(str, given)) if isinstance(given, tuple) else given,
)
def test_what_the_disk_refuses_is_counted_told_once_and_over_when_it_is_over(
    tmp_path: Path, footage: Path, fault: tuple[str, int], reason: DropReason, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="edge_node.cameras.recording")
    disk = Faulty()
    node = Node(tmp_path, disk)
    try:
        node.event(footage, "before")
        node.until(lambda: node.part.counts.clips == 1)
        disk.fault = fault
        for number in range(1, 4):
            node.event(footage, f"refused-{number}")
            node.until_dropped(reason, number)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        disk.fault = ("", 0)
        node.event(footage, "after")
        node.until(lambda: node.part.counts.clips == 2)
    finally:
        node.part.close()
    assert "again" in caplog.records[-1].message
    assert [name.rpartition("-")[2] for name in node.names()] == [
        "before.json",
        "before.mp4",
        "after.json",
        "after.mp4",
    ]
    assert sum(node.part.counts.dropped.values()) == 3
    for listed in node.part.library.list().clips:
        assert len(frames(node.directory / f"{listed.id}.mp4")) == listed.clip.pictures


def test_recording_goes_on_by_itself_when_there_is_room_again(
    tmp_path: Path, footage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Faulty()
    disk.free = 1 << 20
    node = Node(tmp_path, disk)
    try:
        for number in range(1, 4):
            node.event(footage, f"e{number}")
            node.until_dropped("no-room", number)
        assert node.names() == []
        assert len(caplog.records) == 1
        disk.free = 1 << 40
        node.event(footage, "after")
        node.until(lambda: node.part.counts.clips == 1)
    finally:
        node.part.close()


def test_a_disk_that_was_taken_out_is_used_again_when_it_is_back(tmp_path: Path, footage: Path) -> None:
    node = Node(tmp_path, RealDisk())
    try:
        node.event(footage, "before")
        node.until(lambda: node.part.counts.clips == 1)
        node.directory.rename(tmp_path / "taken-out")
        node.event(footage, "refused")
        node.until_dropped("disk", 1)
        assert node.part.library.list().clips == ()
        (tmp_path / "taken-out").rename(node.directory)
        node.event(footage, "after")
        node.until(lambda: node.part.counts.clips == 2)
        assert [listed.clip.events[0] for listed in node.part.library.list().clips] == ["after", "before"]
        shutil.rmtree(node.directory)
        node.event(footage, "refused")
        node.until_dropped("disk", 2)
        node.event(footage, "anew")
        node.until(lambda: node.part.counts.clips == 3)
        assert [listed.clip.events[0] for listed in node.part.library.list().clips] == ["anew"]
    finally:
        node.part.close()


def test_a_directory_that_cannot_be_made_costs_clips_alone(tmp_path: Path, footage: Path) -> None:
    (tmp_path / "clips").write_text("in the way")
    node = Node(tmp_path, RealDisk())
    try:
        node.event(footage, "refused")
        node.until(lambda: node.part.counts.dropped["disk"] == 1)
        (tmp_path / "clips").unlink()
        node.event(footage, "after")
        node.until(lambda: node.part.counts.clips == 1)
    finally:
        node.part.close()
