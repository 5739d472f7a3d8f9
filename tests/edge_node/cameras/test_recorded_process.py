"""Recording as an operator has it: a node, a stream, and a clip of what happened in it."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.rtsp.clips import write_clip
from benchmarks.rtsp.server import Mount, serving
from edge_node.cameras.recording.shelf import WRITING
from tests.edge_node.cameras.recording.numbered import BLOCK, FPS, SECONDS, numbers, pictures, write
from tests.edge_node.test_node_process import EDGE, Process
from tests.runtime.serving.bundle_factory import make_detector

pytestmark = pytest.mark.integration


class Box:
    """A node with a detector, and a camera `yard` whose tracks ask for clips."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.digest = make_detector(directory / "things")
        self.clips = directory / "state" / "clips"
        self.process: Process | None = None

    def start(self, url: str, *, recording: str = "reserve_bytes = 0\n", more: str = "") -> str:
        """The node's URL. `recording` are further keys of that table."""
        path = self.directory / "site.toml"
        path.write_text(
            f'port = 0\nstate_dir = "{self.directory}/state"\n'
            f'[alone]\nnode = "shop"\n[alone.bundles.things]\npath = "things"\ndigest = "{self.digest}"\n'
            f"[recording]\non = true\npre_s = 1.0\npost_s = 2.0\n{recording}"
            f'[[cameras]]\nname = "yard"\nurl = "{url}"\nloop = true\nmodel = "things"\n'
            f'[cameras.recording]\nevents = ["track"]\nlabels = ["block"]\n{more}'
        )
        self.process = Process(*EDGE, "run", str(path))
        return self.process.url()

    @property
    def said(self) -> str:
        assert self.process is not None
        return self.process.said

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        return self.process.end(number)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    if box.process is not None:
        box.end()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("film") / "film.mp4")


def until(true: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + 40
    while not (told := true()):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    return told


def first_event(url: str, phase: str = "start", event: str = "") -> dict[str, Any]:
    """Of a track that the node remembers, or the next."""
    with httpx.stream("GET", f"{url}/v1/cameras/events?type=track&recent=1000", timeout=40) as events:
        for line in events.iter_lines():
            told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if told.get("phase") == phase and event in ("", told["event"]):
                return dict(told)
    raise AssertionError("the node said no more")


def played(url: str, path: str) -> httpx.Response:
    """Once it is written; until then it says so."""

    def ask() -> httpx.Response | None:
        answer = httpx.get(url + path)
        if answer.status_code == 200:
            return answer
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        return None

    answer = until(ask)
    assert isinstance(answer, httpx.Response)
    return answer


def dropped(url: str, reason: str) -> float:
    (count,) = re.findall(rf'foothill_clips_dropped_total{{reason="{reason}"}} (\S+)', httpx.get(f"{url}/metrics").text)
    return float(count)


def shows_what_happened(video: Path) -> None:
    """All of the block, a second before and one after, every picture in its place."""
    seen = numbers(video)
    around = [number % (SECONDS * FPS) for number in range(seen[0], seen[0] + len(seen))]
    assert seen == around
    assert set(BLOCK) <= set(seen)
    assert BLOCK.start - 3 * FPS <= seen[0] <= BLOCK.start - FPS // 2
    assert BLOCK.stop + FPS // 2 <= seen[-1]


def test_an_event_has_a_clip_that_shows_it_and_outlives_a_kill(box: Box, film: Path) -> None:
    url = box.start(str(film), more='[[cameras]]\nname = "drawn"\nurl = "pattern:"\n')
    event = first_event(url)
    assert event["clip"] == f"/v1/cameras/yard/clips/{event['event']}"
    answer = played(url, event["clip"])
    (box.directory / "got.mp4").write_bytes(answer.content)
    shows_what_happened(box.directory / "got.mp4")
    assert answer.headers["Content-Type"] == "video/mp4"
    part = httpx.get(url + event["clip"], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    listed = httpx.get(f"{url}/v1/cameras/yard/clips").json()
    assert [clip["clip"]["events"][0] for clip in listed["clips"]] == [event["event"]]
    assert httpx.get(url + listed["clips"][0]["url"]).content == answer.content
    assert "camera drawn: no clips: a test pattern sends pictures" in box.said
    metrics = httpx.get(f"{url}/metrics").text
    assert "foothill_clips_total 1.0" in metrics
    assert float(re.findall(r"\nfoothill_clips_disk_bytes (\S+)", metrics)[0]) > len(answer.content)
    assert float(re.findall(r'foothill_camera_ring_seconds{camera="yard"} (\S+)', metrics)[0]) > 1.0
    until(lambda: list((box.clips / WRITING).iterdir()))
    assert box.end(signal.SIGKILL) == -signal.SIGKILL
    assert list((box.clips / WRITING).iterdir())
    url = box.start(str(film))
    assert httpx.get(url + event["clip"]).content == answer.content
    assert list((box.clips / WRITING).iterdir()) == []
    assert len(list(box.clips.glob("*/*/*.mp4"))) == 1


def test_a_clip_of_a_stream_over_rtsp_shows_what_happened(box: Box, needs_gstreamer: None, tmp_path: Path) -> None:
    write_clip(tmp_path / "raw", pictures(), fps=FPS, gop=FPS)
    with serving([Mount("/yard", str(tmp_path / "raw"), FPS, "h264")]) as server:
        url = box.start(f"{server.url}/yard")
        event = first_event(url)
        (tmp_path / "got.mp4").write_bytes(played(url, event["clip"]).content)
        shows_what_happened(tmp_path / "got.mp4")


@pytest.mark.parametrize(
    ("reason", "keys"),
    [("no-room", f"reserve_bytes = {1 << 50}\n"), ("disk", 'reserve_bytes = 0\ndirectory = "{file}/clips"\n')],
)
def test_a_disk_that_takes_nothing_keeps_no_event_from_being_told(box: Box, film: Path, reason: str, keys: str) -> None:
    (box.directory / "file").write_text("where a directory should be")
    url = box.start(str(film), recording=keys.format(file=box.directory / "file"))
    event = first_event(url)
    until(lambda: dropped(url, reason))
    assert first_event(url, "end", event["event"])["clip"] == event["clip"]
    refused = httpx.get(url + event["clip"])
    assert (refused.status_code, refused.json()["code"]) in {(404, "not_found"), (503, "unavailable")}
    assert box.said.count("clips cannot be written now") == 1
    assert "Traceback" not in box.said
