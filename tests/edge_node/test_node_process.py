"""The node as its operator has it: command line, processes, a real fleet manager; killed, cut off, started again."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import simplejpeg

from contracts.manifest import FILE
from runtime.serving.engines.kept_graph import GRAPH
from tests.edge_node.bundle_factory import describe, pack
from tests.runtime.serving.bundle_factory import make_classifier

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EDGE = ("-c", "from edge_node.cli import app; app()")
LISTENING = re.compile(r"listening on (https?://\S+)")


class Process:
    """A Python process and what it says on stderr."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self.said = ""
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def url(self, timeout_s: float = 60.0) -> str:
        """Waits until it listens."""
        give_up_at = time.monotonic() + timeout_s
        while (left_s := give_up_at - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left_s)
            except queue.Empty:
                break
            assert line, f"it ended: {self.said}"
            found = LISTENING.search(line)
            if found:
                return found.group(1)
        raise AssertionError(f"it does not listen: {self.said}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(timeout=30)
        self._reader.join()
        return self.process.returncode

    def _read(self) -> None:
        """As long as it lives: a process whose words nobody reads stops when the pipe is full."""
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                self.said += line
                self._lines.put(line)
        self._lines.put("")


class Fleet:
    """A real fleet manager and its operator."""

    def __init__(self, directory: Path, *, broker: str = "auto") -> None:
        config = directory / "fleet.toml"
        config.write_text(
            f'port = 0\nstate_dir = "{directory}/fleet"\ncloud_urls = []\n'
            f'[broker]\nport = 0\nstate_dir = "{directory}/broker"\nprogram = "{broker}"\n'
        )
        self.process = Process("-m", "fleet", str(config))
        self.url = self.process.url()
        token = (directory / "fleet" / "admin.token").read_text().strip()
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def token(self, node: str) -> str:
        place = {"node": node, "region": "eu-central", "lat": 50.1, "lon": 8.7}
        answer = self.http.post("/v1/tokens", json=place)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def publish(self, directory: Path) -> None:
        for name, file in describe(directory).files.items():
            assert self.http.put(f"/v1/blobs/{file.sha256}", content=(directory / name).read_bytes()).is_success
        answer = self.http.post("/v1/models", content=(directory / FILE).read_bytes())
        assert answer.is_success, answer.text

    def roll_out(self, bundle: str) -> None:
        answer = self.http.post("/v1/rollouts", json={"bundle": bundle, "gate": "health"})
        assert answer.is_success, answer.text
        rollout = answer.json()
        while rollout["state"] not in ("completed", "rolled-back"):
            time.sleep(0.1)
            rollout = self.http.get(f"/v1/rollouts/{rollout['id']}").json()
        assert rollout["state"] == "completed", rollout

    def stop(self) -> None:
        self.http.close()
        self.process.end()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.stop()


def edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *EDGE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def node_config(directory: Path) -> Path:
    path = directory / "edge.toml"
    token = directory / "admin.token"
    token.write_text("node-secret\n")
    path.write_text(f'port = 0\nstate_dir = "{directory}/node"\nprobation_s = 0.2\nadmin_token_file = "{token}"\n')
    return path


def enrol(fleet: Fleet, directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options: Sequence[str] = (
        *("--fleet", fleet.url, "--token", fleet.token("frankfurt"), "--url", "http://127.0.0.1:8100"),
        *("--state", str(directory / "node")),
    )
    return edge("enrol", *options, *more)


def picture() -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((16, 16, 3), 90, np.uint8), quality=90))


def predict(url: str, residency: str = "eu-central") -> httpx.Response:
    return httpx.post(
        f"{url}/v1/predict/digits",
        content=picture(),
        headers={
            "Content-Type": "image/jpeg",
            "Foothill-Escalation": "never",
            "Foothill-Residency": residency,
        },
        timeout=10,
    )


def test_from_a_token_to_answers_through_a_kill_and_a_cut_uplink(fleet: Fleet, tmp_path: Path) -> None:
    joined = enrol(fleet, tmp_path, "--json")
    assert joined.returncode == 0, joined.stderr
    assert json.loads(joined.stdout)["node"] == "frankfurt"
    assert (tmp_path / "node" / "enrolment.json").stat().st_mode & 0o777 == 0o600

    node = Process(*EDGE, "run", str(node_config(tmp_path)))
    try:
        node_url = node.url()
        assert predict(node_url).status_code == 404
        digest = make_classifier(tmp_path / "bundle", size=192)
        fleet.publish(tmp_path / "bundle")
        fleet.roll_out("digits-edge@1")
        answer = predict(node_url)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Foothill-Digest"] == digest
        kept = graph_kept(tmp_path)
        assert answer.headers["Foothill-Node"] == "frankfurt"
        refused = predict(node_url, residency="us-east")
        assert (refused.status_code, refused.json()["code"]) == (403, "residency_denied")
        metrics = httpx.get(f"{node_url}/metrics").text
        assert 'foothill_model_phase{model="digits",phase="active"} 1.0' in metrics
        assert 'foothill_model_serving{model="digits"} 1.0' in metrics
        assert node.end(signal.SIGKILL) == -signal.SIGKILL
        fleet.stop()
        node = Process(*EDGE, "run", str(tmp_path / "edge.toml"))
        assert predict(node.url()).status_code == 200
        assert graph_kept(tmp_path) == kept
    finally:
        code = node.end()
    assert code == 0, node.said
    assert "Traceback" not in node.said, node.said


def graph_kept(directory: Path) -> tuple[Path, int]:
    """The optimized graph of the one artifact, and when it was made."""
    (graph,) = (directory / "node" / "providers").glob(f"*/*/{GRAPH}")
    return graph, graph.stat().st_mtime_ns


def test_bundle_files_are_handed_to_the_admin_only(fleet: Fleet, tmp_path: Path) -> None:
    assert enrol(fleet, tmp_path).returncode == 0
    node = Process(*EDGE, "run", str(node_config(tmp_path)))
    try:
        digest = pack(tmp_path / "bundle")
        fleet.publish(tmp_path / "bundle")
        url = node.url()
        file = f"{url}/v1/bundles/{digest}/{FILE}"
        fleet.roll_out("digits-edge@1")
        assert httpx.get(file).status_code in (401, 403)
        assert httpx.request("BREW", url).json()["source"] == httpx.get(file).json()["source"]
        answer = httpx.get(file, headers={"Authorization": "Bearer node-secret"})
        assert answer.content == (tmp_path / "bundle" / FILE).read_bytes()
    finally:
        node.end()


def test_what_the_admin_unloads_stays_off_through_a_kill_and_is_told_to_the_fleet(fleet: Fleet, tmp_path: Path) -> None:
    def told() -> tuple[str, bool]:
        (seen,) = fleet.http.get("/v1/nodes").json()
        report = seen["reported"]["digits"]
        return report["phase"], bool(report["serving"])

    def hand(url: str, act: str) -> None:
        answer = httpx.post(
            f"{url}/v2/repository/models/digits/{act}", headers={"Authorization": "Bearer node-secret"}, timeout=30
        )
        assert answer.status_code == 200, answer.text

    def hears(wanted: tuple[str, bool]) -> None:
        give_up_at = time.monotonic() + 30
        while told() != wanted:
            assert time.monotonic() < give_up_at, told()
            time.sleep(0.05)

    assert enrol(fleet, tmp_path).returncode == 0
    node = Process(*EDGE, "run", str(node_config(tmp_path)))
    try:
        pack(tmp_path / "bundle")
        fleet.publish(tmp_path / "bundle")
        url = node.url()
        fleet.roll_out("digits-edge@1")
        hand(url, "unload")
        hears(("unloaded", False))
        assert 'foothill_model_phase{model="digits",phase="unloaded"} 1.0' in httpx.get(f"{url}/metrics").text
        node.end(signal.SIGKILL)
        node = Process(*EDGE, "run", str(tmp_path / "edge.toml"))
        url = node.url()
        time.sleep(1.0)  # it hears its desired document again
        assert predict(url).status_code == 404
        (line,) = httpx.post(f"{url}/v2/repository/index").json()
        assert (line["state"], line["reason"]) == ("UNAVAILABLE", "unloaded")
        hand(url, "load")
        hears(("active", True))
        assert predict(url).status_code == 200
    finally:
        assert node.end() == 0, node.said


def test_one_state_directory_has_one_node(fleet: Fleet, tmp_path: Path) -> None:
    assert enrol(fleet, tmp_path).returncode == 0
    config = node_config(tmp_path)
    node = Process(*EDGE, "run", str(config))
    try:
        node.url()
        second = edge("run", str(config))
        assert second.returncode == 2
        assert "Another process runs in state_dir" in second.stderr
    finally:
        assert node.end(signal.SIGINT) == 0
    again = enrol(fleet, tmp_path)
    assert again.returncode == 1
    assert "enrolled already: node frankfurt" in again.stderr


def test_a_node_is_open_to_strangers_on_purpose_only(fleet: Fleet, tmp_path: Path) -> None:
    assert enrol(fleet, tmp_path).returncode == 0
    config = node_config(tmp_path)
    config.write_text(f'host = "0.0.0.0"\n{config.read_text()}')
    refused = edge("run", str(config))
    assert refused.returncode == 2
    assert "host '0.0.0.0' lets others connect, and nothing asks who they are" in refused.stderr
    assert "start with --insecure" in refused.stderr
    assert "listening" not in refused.stderr

    node = Process(*EDGE, "run", str(config), "--insecure")
    try:
        url = node.url().replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/healthz").json()["node"] == "frankfurt"
    finally:
        assert node.end() == 0, node.said
    assert "without authentication, as insecure says" in node.said


def test_the_fleets_own_words_are_shown_when_it_refuses(fleet: Fleet, tmp_path: Path) -> None:
    state = str(tmp_path / "node")
    refused = edge("enrol", "--fleet", fleet.url, "--token", "guess", "--url", "http://127.0.0.1:1", "--state", state)
    assert refused.returncode == 1
    assert "token is unknown, used or expired" in refused.stderr
    assert not (tmp_path / "node" / "enrolment.json").exists()
    told = edge(
        *("enrol", "--fleet", fleet.url, "--token", "guess", "--url", "http://127.0.0.1:1", "--state", state, "--json")
    )
    assert json.loads(told.stderr)["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "has joined no fleet yet"),
        ("prot = 1", "Did you mean `port`?"),
        ('target = "pdp-11"', "not in the board table"),
        ("audit_rate = 2.0", "audit_rate"),
    ],
    ids=["not enrolled", "bad key", "bad target", "bad rate"],
)
def test_a_node_that_cannot_start_says_what_to_do(tmp_path: Path, config: str, message: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f'state_dir = "{tmp_path}/node"\n{config}\n')
    ended = edge("run", str(path))
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unreachable_fleet_and_bad_urls_are_named(tmp_path: Path) -> None:
    state = str(tmp_path / "node")
    away = edge(
        "enrol", "--fleet", "http://127.0.0.1:9", "--token", "x", "--url", "http://127.0.0.1:1", "--state", state
    )
    assert away.returncode == 1
    assert "cannot be reached" in away.stderr
    bad = edge("enrol", "--fleet", "127.0.0.1", "--token", "x", "--url", "http://127.0.0.1:1", "--state", state)
    assert "--fleet '127.0.0.1' is no URL" in bad.stderr
    assert os.listdir(tmp_path / "node") == []
