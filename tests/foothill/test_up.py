"""`foothill up` as a person uses it: one command, URLs in a file, Ctrl-C, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from contracts.enrolment import TokenRequest
from fleet.client import FleetClient
from foothill.client import Client
from foothill.site import Urls
from model_compiler.digits.camera import test_frames as camera_frames

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]


def test_up_answers_everywhere_then_stops_without_a_trace_and_comes_back_as_it_was(tmp_path: Path) -> None:
    picture = camera_frames(1, seed=11).jpeg[0]
    first = _Up(tmp_path)
    try:
        urls = first.ready()
        assert set(urls.edges) == {"frankfurt", "ashburn", "tokyo"}
        assert urls.broker.startswith("mqtt://")
        assert httpx.get(f"{urls.fleet}/healthz").json()["mqtt"] is True
        for url in (urls.router, urls.cloud, *urls.edges.values()):
            assert httpx.get(f"{url}/v2/models/digits/ready").status_code == 200
        with Client(urls.router) as client:
            assert client.predict("digits", picture).prediction.model == "digits"
        family = first.family()
        assert len(family) >= 7
        _enrol_a_node_of_ones_own(tmp_path / "state", urls)
    finally:
        first.interrupt()
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []
    assert not first.ready_file.exists()

    first.ready_file.write_text("left behind by one that was killed")
    again = _Up(tmp_path)
    try:
        assert again.ready() == urls
        with Client(urls.router) as client:
            assert {node.node for node in client.lease("digits").nodes} == set(urls.edges)
            assert client.predict("digits", picture, escalation="never").bundle == "digits-edge@1"
    finally:
        again.interrupt()


def _enrol_a_node_of_ones_own(state: Path, urls: Urls) -> None:
    """A node that nobody rolls out to must not keep the next start from what is ours."""
    fleet = FleetClient(urls.fleet, (state / "fleet" / "admin.token").read_text().strip())
    token = fleet.issue_token(TokenRequest("kitchen", "eu-home", 52.0, 5.0)).token
    command = [sys.executable, "-m", "foothill", "edge", "enrol", "--fleet", urls.fleet, "--token", token]
    command += ["--url", "http://127.0.0.1:9", "--state", str(state / "kitchen")]
    subprocess.run(command, capture_output=True, timeout=60, check=True)


class _Up:
    """The command in a process of its own, in an empty working directory."""

    def __init__(self, directory: Path) -> None:
        self.ready_file = directory / "ready.json"
        command = [sys.executable, "-m", "foothill", "up", "--quick", "--state", str(directory / "state")]
        command += ["--ready-file", str(self.ready_file)]
        self._log = (directory / "up.log").open("ab")
        self._process = subprocess.Popen(command, cwd=directory, stdout=self._log, stderr=self._log)

    def ready(self, timeout_s: float = 180.0) -> Urls:
        until_s = time.monotonic() + timeout_s
        while not (self.ready_file.exists() and self.ready_file.read_bytes().startswith(b"{")):
            assert self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < until_s, Path(self._log.name).read_text()
            time.sleep(0.05)
        return msgspec.json.decode(self.ready_file.read_bytes(), type=Urls, strict=True)

    def family(self) -> list[int]:
        """Process ids of everything it started, and of what that started."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except FileNotFoundError:
                    continue
        found = {self._process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {os.getpid()})

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            assert self._process.wait(60) == 0
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
