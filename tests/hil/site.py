"""A whole small site of real processes: broker, fleet manager, and a node whose process can be killed and started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from runtime.links.process.ports import free_ports
from tests.edge_node.bundle_factory import pack
from tests.edge_node.test_node_process import EDGE, Fleet, edge

ROOT = Path(__file__).parents[2]
NODE = "board-1"
ADMIN_TOKEN = "node-secret"


class Site:
    """One node, `digits-edge@1` before and `digits-edge@2` now."""

    def __init__(self, directory: Path, *, probation_s: float = 1.0) -> None:
        self.directory = directory
        self.fleet = Fleet(directory)
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.pid_file = directory / "node.pid"
        self.log = directory / "node.log"
        self.config = directory / "edge.toml"
        self.admin_token = directory / "admin.token"
        self.admin_token.write_text(f"{ADMIN_TOKEN}\n")
        self.config.write_text(
            f'port = {self.url.rpartition(":")[2]}\nstate_dir = "{directory}/node"\nprobation_s = {probation_s}\n'
            f'admin_token_file = "{self.admin_token}"\n'
        )

    @property
    def fleet_token(self) -> Path:
        return self.directory / "fleet" / "admin.token"

    @property
    def restart(self) -> list[str]:
        script = str(Path(__file__).with_name("restart_node.py"))
        command = [sys.executable, *EDGE, "run", str(self.config)]
        return [sys.executable, script, str(self.pid_file), str(self.log), *command]

    def start(self) -> Site:
        state = str(self.directory / "node")
        options = ("--fleet", self.fleet.url, "--token", self.fleet.token(NODE), "--url", self.url, "--state", state)
        joined = edge("enrol", *options)
        assert joined.returncode == 0, joined.stderr
        self.start_node()
        self.digests = {version: self.serve(version) for version in ("1", "2")}
        return self

    def serve(self, version: str) -> str:
        directory = self.directory / f"bundle-{version}"
        digest = pack(directory, version=version, seed=int(version))
        self.fleet.publish(directory)
        self.fleet.roll_out(f"digits-edge@{version}")
        return digest

    def start_node(self) -> None:
        """Kills the one there is and starts another, as the board's restart does."""
        subprocess.run(self.restart, cwd=ROOT, check=True)
        _wait_up(self.url)

    def boards(self, limits: str = "p99_ms = 1e6, min_throughput = 0.0", more: str = "") -> Path:
        """A boards.toml whose restart kills the node's process and starts it again; no limit says how fast it is."""
        path = self.directory / "boards.toml"
        path.write_text(
            f'[boards.{NODE}]\nurl = "{self.url}"\nnode = "{NODE}"\nadmin_token_file = "{self.admin_token}"\n'
            f"restart = {{ argv = {self.restart!r} }}\nlimits = {{ {limits} }}\n{more}"
        )
        return path

    def settle(self) -> None:
        """Waits for the end of every rollout."""
        end_s = time.monotonic() + 120
        while any(each["ended_at_s"] is None for each in self.fleet.http.get("/v1/rollouts").json()):
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def kill_node(self) -> None:
        os.kill(int(self.pid_file.read_text()), signal.SIGKILL)

    def standing(self) -> tuple[dict[str, str], str]:
        """What the node is assigned, and what digits would go back to."""
        node = self.fleet.http.get("/v1/nodes").json()[0]
        return node["desired"], node["reported"]["digits"]["previous"]

    def stop(self) -> None:
        if self.pid_file.exists():
            with contextlib.suppress(ProcessLookupError):
                self.kill_node()
        self.fleet.stop()


def _wait_up(url: str) -> None:
    end_s = time.monotonic() + 60
    while not _listens(url):
        assert time.monotonic() < end_s, "the node does not listen"
        time.sleep(0.05)


def _listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False
