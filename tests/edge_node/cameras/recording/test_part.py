"""Recording as a node runs it: asked for on the event loop, written on a thread, ended when the node ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_node.cameras.recording.clips import MOST_WAITING
from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig
from edge_node.cameras.recording.part import RecordingPart
from runtime.links.process.disk import RealDisk, Writing
from tests.edge_node.cameras.recording.footage import HEVC, NOW_S, Camera, film, frames
from tests.edge_node.cameras.recording.test_full_disk import Node


class Stuck(RealDisk):
    """A disk on which nothing can be opened until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def open(self, path: Path, *, at: int = 0, mode: int = 0o644) -> Writing:
        self.go.wait(30)
        return super().open(path, at=at, mode=mode)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("footage") / "source", seconds=6)


@pytest.fixture
def part(tmp_path: Path) -> Iterator[RecordingPart]:
    made = part_in(tmp_path)
    made.start()
    yield made
    made.close()


def part_in(state_dir: Path, /, **config: Any) -> RecordingPart:
    given = {"on": True, "pre_s": 1.0, "post_s": 1.0, "reserve_bytes": 0, **config}
    return RecordingPart(state_dir, RecordingConfig(**given), wall=lambda: NOW_S)


def filled(part: RecordingPart, camera: str, footage: Path) -> Camera:
    ring = part.add(camera, CameraRecordingConfig())
    assert ring is not None
    playing = Camera(ring)
    playing.play(footage)
    return playing


def until(part: RecordingPart, clips: int) -> None:
    end = time.monotonic() + 20
    while part.counts.clips < clips:
        assert time.monotonic() < end, part.counts.dropped
        time.sleep(0.01)


def test_cameras_have_their_clips_side_by_side(part: RecordingPart, footage: Path, tmp_path: Path) -> None:
    filled(part, "yard", footage)
    filled(part, "gate", film(tmp_path / "other", HEVC, seconds=6))
    assert part.want("yard", "a", NOW_S + 3)
    assert part.want("gate", "b", NOW_S + 3)
    until(part, 2)
    clips = part.library.list().clips
    assert {(listed.clip.camera, listed.clip.codec) for listed in clips} == {("yard", "h264"), ("gate", "hevc")}
    for listed in clips:
        assert len(frames(tmp_path / "clips" / f"{listed.id}.mp4")) == listed.clip.pictures
    assert part.shelf.taken_bytes == sum(path.stat().st_size for path in (tmp_path / "clips").glob("*/*/*"))
    assert part.rings["yard"].figures().bytes > 0


def test_asking_never_waits_for_the_disk(tmp_path: Path, footage: Path) -> None:
    disk = Stuck()
    node = Node(tmp_path, disk)
    try:
        node.camera.play(footage)
        begun = time.perf_counter()
        asked = [node.part.want("yard", f"e{number}", NOW_S + 3.0) for number in range(MOST_WAITING + 10)]
        assert time.perf_counter() - begun < 1.0
        assert asked.count(False) == node.part.counts.dropped["busy"] >= 9
        disk.go.set()
        node.until(lambda: node.part.counts.clips == 1)
    finally:
        disk.go.set()
        node.part.close()


def test_a_camera_that_is_not_recorded_gives_none(part: RecordingPart) -> None:
    assert part.add("yard", CameraRecordingConfig(on=False)) is None
    assert not part.want("yard", "e", NOW_S)
    assert not part.want("nobody", "e", NOW_S)
    assert part.counts.dropped == {"camera": 2}


def test_a_camera_that_is_removed_still_gets_the_clips_it_was_asked_for(part: RecordingPart, footage: Path) -> None:
    filled(part, "yard", footage)
    assert part.want("yard", "a", NOW_S + 3)
    part.remove("yard")
    until(part, 1)
    assert not part.want("yard", "b", NOW_S + 3)
    assert part.library.list().clips[0].clip.events == ("a",)


def test_the_end_of_the_node_ends_clips_with_what_they_have(tmp_path: Path, footage: Path) -> None:
    part = part_in(tmp_path, post_s=60.0)
    part.start()
    filled(part, "yard", footage)
    assert part.want("yard", "a", NOW_S + 3)
    part.close()
    (listed,) = part.library.list().clips
    assert listed.clip.cut_short == "the node was stopped"
    assert len(frames(tmp_path / "clips" / f"{listed.id}.mp4")) == listed.clip.pictures
    assert not part.want("yard", "b", NOW_S + 3)


def test_a_fault_of_one_camera_ends_its_clips_and_no_others(
    part: RecordingPart, footage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An event at a time that is no number at all, while another clip of that camera is written."""
    filled(part, "yard", footage)
    filled(part, "gate", footage)
    assert part.want("yard", "a", NOW_S + 3, post_s=60.0)
    assert part.want("yard", "b", float("nan"))
    assert part.want("gate", "c", NOW_S + 3)
    until(part, 1)
    assert part.library.list().clips[0].clip.camera == "gate"
    assert part.counts.dropped == {"failed": 2}
    assert "yard: given up" in caplog.text
    assert part.want("yard", "d", NOW_S + 3)
    until(part, 2)


def test_what_was_recorded_is_there_in_the_next_life(part: RecordingPart, footage: Path, tmp_path: Path) -> None:
    filled(part, "yard", footage)
    assert part.want("yard", "a", NOW_S + 3)
    until(part, 1)
    part.close()
    again = part_in(tmp_path)
    again.start()
    again.close()
    assert again.library.list() == part.library.list()


def test_another_directory_is_taken_where_one_is_named(tmp_path: Path, footage: Path) -> None:
    part = part_in(tmp_path, directory=str(tmp_path / "big-disk/clips"))
    part.start()
    filled(part, "yard", footage)
    assert part.want("yard", "a", NOW_S + 3)
    part.close()
    assert len(list((tmp_path / "big-disk/clips/yard").glob("*/*.mp4"))) == 1
    assert not (tmp_path / "clips").exists()
