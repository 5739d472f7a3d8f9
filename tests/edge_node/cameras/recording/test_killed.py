"""SIGKILL while clips are written: what has a clip's name is a whole clip, and the next life clears the rest away."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig
from edge_node.cameras.recording.library import Library
from edge_node.cameras.recording.part import RecordingPart
from edge_node.cameras.recording.shelf import WRITING, Shelf
from tests.edge_node.cameras.recording.footage import Camera, film, frames

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[4]
KILLS = 6
CHILD = "import sys; from tests.edge_node.cameras.recording.test_killed import live; live(*sys.argv[1:])"


def live(directory: str, source: str) -> None:
    """Plays the same seconds again and again, each with a clip, and says how many are safe, until it is killed."""
    config = RecordingConfig(on=True, pre_s=2.0, post_s=2.0, reserve_bytes=0, keep_bytes=16 << 20)
    part = RecordingPart(Path(directory), config)
    ring = part.add("yard", CameraRecordingConfig())
    assert ring is not None
    part.start()
    camera = Camera(ring)
    for number in range(1_000_000):
        begun_s = camera.now_s
        camera.play(Path(source))
        part.want("yard", f"e{number}", begun_s + 3.0)
        while part.counts.clips <= number - 3:
            time.sleep(0.001)
        os.write(1, f"{part.counts.clips}\n".encode())


def lived(directory: Path, source: Path, seconds: float) -> int:
    """How many clips a child had promised before it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(source)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    said = [child.stdout.readline()]
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    said += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return max(int(line) for line in said if line.endswith("\n"))


def test_no_kill_leaves_half_a_clip_under_a_clips_name(tmp_path: Path) -> None:
    source = film(tmp_path / "source", seconds=6, size=(320, 240), noise=True)
    promised = found = half = 0
    for life in range(KILLS):
        promised += lived(tmp_path, source, random.Random(life).uniform(0.2, 1.0))
        half += len(list((tmp_path / "clips" / WRITING).iterdir()))
        shelf = Shelf(tmp_path / "clips", RecordingConfig(keep_bytes=1 << 40), {})
        shelf.load()
        clips = Library(shelf).list(limit=1000).clips
        for listed in clips:
            video = tmp_path / "clips" / f"{listed.id}.mp4"
            assert hashlib.sha256(video.read_bytes()).hexdigest() == listed.clip.sha256
        assert list((tmp_path / "clips" / WRITING).iterdir()) == []
        assert shelf.taken_bytes <= 16 << 20
        assert len(list((tmp_path / "clips").glob("*/*/*"))) == 2 * len(clips)
        found = len(clips)
        if clips:
            assert len(frames(tmp_path / "clips" / f"{clips[0].id}.mp4")) == clips[0].clip.pictures
    assert promised > KILLS
    assert found > 0
    assert half > 0, "no kill came in the middle of a clip: the test shows nothing"
