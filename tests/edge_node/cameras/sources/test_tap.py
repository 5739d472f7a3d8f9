"""Who sees what is encoded sees it with the times that the pictures have, and hears where there is nothing to see."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edge_node.cameras.config import CameraConfig
from edge_node.cameras.sources.opening import open_source
from edge_node.cameras.sources.trouble import Trouble
from tests.edge_node.cameras.recording.footage import film

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream


class Watching:
    def __init__(self) -> None:
        self.begun = 0
        self.times: dict[int, float] = {}
        self.refused: list[str] = []

    def begin(self, stream: VideoStream) -> None:
        self.begun += 1

    def put(self, packet: av.Packet[VideoStream], at_s: float) -> None:
        assert packet.pts is not None
        self.times[packet.pts] = at_s

    def refuse(self, why: str) -> None:
        self.refused.append(why)


def read(url: str, tap: Watching) -> list[float]:
    """The times of all pictures of a file, read as fast as that goes."""
    config = msgspec.convert({"name": "a", "url": url, "pace": "every-frame"}, CameraConfig)
    source = open_source(config.address(), ("", ""), config.wishes, corrupt=lambda: None, tap=tap)
    told: list[float] = []
    with pytest.raises(Trouble, match="over"):
        told.extend(shot.at_s for shot in source.shots(threading.Event()))
    source.close()
    return told


def test_packets_have_the_times_of_their_pictures_though_all_come_at_once(tmp_path: Path) -> None:
    tap = Watching()
    told = read(str(film(tmp_path / "a.mp4", seconds=8)), tap)
    assert (tap.begun, len(told), len(tap.times)) == (1, 200, 200)
    assert told[-1] - told[0] == pytest.approx(8.0, abs=0.1)
    shown = [tap.times[pts] for pts in sorted(tap.times)]
    assert all(abs(at_s - picture_s) < 0.3 for at_s, picture_s in zip(shown[10:], told[10:], strict=True))
    assert tap.refused == []


@pytest.mark.parametrize(("url", "kind"), [("pattern:", "a test pattern"), ("pictures", "a folder")])
def test_sources_of_single_pictures_say_that_there_is_nothing(tmp_path: Path, url: str, kind: str) -> None:
    (tmp_path / "pictures").mkdir()
    config = msgspec.convert({"name": "a", "url": url}, CameraConfig)
    tap = Watching()
    open_source(config.address(tmp_path), ("", ""), config.wishes, corrupt=lambda: None, tap=tap).close()
    assert tap.begun == 0
    assert tap.refused[0].startswith(f"{kind} sends pictures")
