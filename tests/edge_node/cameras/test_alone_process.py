"""A box with cameras as its operator has it: one file, one command."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from tests.edge_node.test_node_process import EDGE, Process
from tests.runtime.serving.bundle_factory import make_classifier

pytestmark = pytest.mark.integration

SEVEN = [60.0 if label == 7 else 0.0 for label in range(10)]


class Site:
    def __init__(self, directory: Path, bias: list[float] | None = None) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.digest = make_classifier(directory / "bundle", bias=bias or SEVEN)
        self.processes: list[Process] = []
        self.head = ""
        """Keys before all others."""

    def write(self, *cameras: str, digest: str = "", more: str = "", last: str = "") -> Path:
        """A file with these cameras, each a test pattern that the model sees."""
        tables = "".join(
            f'[[cameras]]\nname = "{name}"\nurl = "pattern:?fps=20"\nmodel = "digits"\n' for name in cameras
        )
        path = self.directory / "site.toml"
        path.write_text(
            f'{self.head}port = 0\nstate_dir = "{self.directory}/state"\n[alone]\nnode = "shop"\n'
            f'[alone.bundles.digits]\npath = "bundle"\ndigest = "{digest or self.digest}"\n{more}{tables}{last}'
        )
        return path

    def start(self, path: Path) -> Process:
        process = Process(*EDGE, "run", str(path))
        self.processes.append(process)
        return process


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for process in site.processes:
        process.end()


def until(true: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + 30
    while not (told := true()):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    return told


def cameras(url: str) -> dict[str, Any]:
    return {camera["name"]: camera for camera in httpx.get(f"{url}/v1/cameras").json()}


def test_one_file_is_all_it_needs_and_cameras_follow_it(site: Site) -> None:
    path = site.write("door", "yard")
    process = site.start(path)
    url = process.url()
    until(lambda: {name for name, camera in cameras(url).items() if camera["frames"]["inferred"]} == {"door", "yard"})
    with httpx.stream("GET", f"{url}/v1/cameras/events?recent=10&type=picture&camera=door", timeout=20) as events:
        told = next(line for line in events.iter_lines() if line.startswith("data: "))
    event = json.loads(told.removeprefix("data: "))
    assert (event["node"], event["label"], event["phase"]) == ("shop", "7", "start")
    door = cameras(url)["door"]
    metrics = httpx.get(f"{url}/metrics").text
    assert 'foothill_camera_state{camera="door",state="live"} 1.0' in metrics
    assert 'foothill_camera_events_total{camera="door",type="picture"} 1.0' in metrics
    (count,) = re.findall(r'foothill_camera_latency_seconds_count\{camera="door"\} (\d+)', metrics)
    assert int(count) >= door["frames"]["inferred"] > 0
    path.write_text("not TOML")
    until(lambda: "cameras stay as they are" in process.said)
    site.write("door", "garden")
    until(lambda: cameras(url).keys() == {"door", "garden"})
    assert cameras(url)["door"]["since_at_s"] == door["since_at_s"]
    assert httpx.get(f"{url}/cameras").text.startswith("<!doctype html>")
    assert process.end() == 0


class _Hook(BaseHTTPRequestHandler):
    heard: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.heard.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_of_the_operators_hears_of_its_cameras(site: Site) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f'[[webhooks]]\nurl = "http://127.0.0.1:{server.server_port}/"\ntypes = ["picture", "state"]\n'
    process = site.start(site.write("door", more=hook))
    url = process.url()
    until(lambda: {"picture", "state"} <= {message["type"] for message in _Hook.heard})
    metrics = httpx.get(f"{url}/metrics").text
    assert 'foothill_camera_events_lost_total{outlet="webhook"} 0.0' in metrics
    assert "foothill_camera_snapshots_lost_total 0.0" in metrics
    assert process.end() == 0
    assert "stopped" in {message.get("state") for message in _Hook.heard}, "what was said last is told too"
    numbers = [message["sequence"] for message in _Hook.heard]
    assert numbers == sorted(set(numbers))
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("digest", "more", "told"),
    [
        ("sha256:" + "0" * 64, "", "[alone.bundles.digits]"),
        ("sha256:1", "", "sha256:<64 hex digits>"),
        ("", '[[cameras]]\nname = "door"\nurl = "pattern:"\n', "door is there twice"),
        ("", '[[cameras]]\nname = "x"\nurl = "rtsp://a:b@c/"\n', "password_env"),
        ("", '[[cameras]]\nname = "x"\nurl = "pattern:"\nmodle = "digits"\n', "modle"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_words(site: Site, digest: str, more: str, told: str) -> None:
    process = site.start(site.write("door", digest=digest, more=more))
    until(lambda: process.process.poll() is not None)
    assert process.end() == 2
    assert told in process.said
    assert "Traceback" not in process.said


def test_a_node_that_has_joined_a_fleet_is_not_alone(site: Site) -> None:
    (site.directory / "state").mkdir()
    (site.directory / "state" / "enrolment.json").write_text("{}")
    process = site.start(site.write("door"))
    until(lambda: process.process.poll() is not None)
    assert process.end() == 2
    assert "take the table out" in process.said


def test_a_larger_box_is_asked_and_its_word_amends_what_the_small_one_says(site: Site, tmp_path: Path) -> None:
    office = Site(tmp_path / "office", bias=[60.0 if label == 3 else 0.0 for label in range(10)])
    cloud = site.start(office.write()).url()
    escalation = 'look_s = 0.1\nask = "always"\nagain_s = 1.0\n'
    path = site.write("door", more="[snapshots]\nkeep_days = 1.0\n", last=f"[cameras.escalation]\n{escalation}")
    path.write_text(f'cloud_urls = ["{cloud}"]\n' + path.read_text())
    url = site.start(path).url()
    with httpx.stream("GET", f"{url}/v1/cameras/events?recent=10&type=picture", timeout=20) as events:
        told = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
        amended = next(event for event in told if event["phase"] == "amended")
    assert (amended["label"], amended["verdict"]["edge_label"], amended["verdict"]["tier"]) == ("3", "7", "cloud")
    door = until(lambda: (told := cameras(url)["door"])["sent_bytes"] and told)
    assert door["judged"]["escalated"] >= 1
    record = json.loads((site.directory / "state" / "departures.jsonl").read_text().splitlines()[0])
    assert (record["camera"], record["what"], record["to"]) == ("door", "escalate", cloud)
