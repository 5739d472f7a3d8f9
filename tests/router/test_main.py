"""The router as a process: it starts with half the house away, tells what is wrong, and can be asked why."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli import app

pytestmark = pytest.mark.integration

NODE = """
[[nodes]]
name = "edge-fra"
url = "http://127.0.0.1:1"
region = "eu-central"
lat = 50.1
lon = 8.7
models = ["digits"]
"""
Started = tuple["subprocess.Popen[str]", str, list[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Started]]:
    """Starts `python -m router` with a configuration; returns the process, its URL and what it logged so far."""
    running: list[subprocess.Popen[str]] = []

    def started(config: str) -> Started:
        path = tmp_path / "router.toml"
        path.write_text(config if "state_dir" in config else f'state_dir = "{tmp_path}/state"\n{config}')
        process = subprocess.Popen(
            [sys.executable, "-m", "router", str(path)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        running.append(process)
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "listening on" in line:
                return process, line.rsplit(" ", 1)[1].strip(), lines
        return process, "", lines

    yield started
    for process in running:
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode in (0, 2)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The URL of a server that gives everybody the same answer."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_it_serves_with_broker_fleet_and_cloud_away(
    start: Callable[[str], Started], tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    broker, fleet, cloud = (unused_tcp_port_factory() for _ in range(3))
    _, url, lines = start(
        f"""
        port = 0
        state_dir = "{tmp_path}/state"
        broker_url = "mqtt://127.0.0.1:{broker}"
        fleet_url = "http://127.0.0.1:{fleet}"
        cloud_urls = ["http://127.0.0.1:{cloud}"]
        """
    )
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
        assert json.load(answer)["broker"] is False
    told = "".join(lines)
    assert "no geoip_database is set" in told
    assert "no hop_key_file is set" in told


def test_two_routers_on_one_state_directory_are_refused(
    start: Callable[[str], Started], tmp_path: Path, unused_tcp_port: int
) -> None:
    config = f'''
        port = 0
        state_dir = "{tmp_path}/state"
        broker_url = "mqtt://127.0.0.1:{unused_tcp_port}"
    '''
    _, url, _ = start(config)
    second, _, lines = start(config)
    assert url
    assert second.wait(20) == 2
    assert "Another process runs in state_dir" in "".join(lines)


def test_a_busy_port_and_bad_settings_exit_with_2(start: Callable[[str], Started]) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        process, url, lines = start(f'port = {port}\nbroker_url = ""')
        assert (process.wait(20), url) == (2, "")
    assert f"port {port} on 127.0.0.1 is already in use" in "".join(lines)
    absent = ('broker_url = ""\ngeoip_database = "absent.mmdb"', "geoip_database absent.mmdb cannot be used")
    for config, word in (
        absent,
        ("prot = 1", "`prot`"),
        ('trusted_proxies = ["x"]', "trusted_proxies"),
        ("a = ", "not TOML"),
    ):
        process, _, lines = start(config)
        assert process.wait(20) == 2
        assert word in "".join(lines)
        assert "Traceback" not in "".join(lines)


def test_explain_prints_a_table_or_json_and_says_when_nobody_answers(
    start: Callable[[str], Started], unused_tcp_port: int
) -> None:
    _, url, _ = start(f'port = 0\nbroker_url = ""\n{NODE}')
    table = CliRunner().invoke(app, ["explain", "digits", "--ip", "192.0.2.7", "--url", url])
    assert table.exit_code == 0
    assert "edge-fra" in table.output
    assert "unknown place, so by load alone" in table.output
    there = CliRunner().invoke(app, ["explain", "digits", "--lat", "50.1", "--lon", "0", "--url", url])
    assert (there.exit_code, "50.10, 0.00 as told" in there.output) == (0, True)
    as_json = CliRunner().invoke(app, ["explain", "digits", "--json", "--url", url])
    assert json.loads(as_json.output)["candidates"][0]["node"] == "edge-fra"
    refused = CliRunner().invoke(app, ["explain", "digits", "--ip", "x", "--url", url])
    assert (refused.exit_code, "is not an IP address" in refused.output) == (1, True)
    for status, told in ((500, "does not look like a Foothill router"), (200, "is no explanation")):
        with answering(status, b'{"model":"\xff","message":"\xff"}') as stranger:
            puzzled = CliRunner().invoke(app, ["explain", "digits", "--url", stranger])
        assert (puzzled.exit_code, told in puzzled.output) == (1, True)
    nobody = CliRunner().invoke(app, ["explain", "digits", "--url", f"http://127.0.0.1:{unused_tcp_port}"])
    assert (nobody.exit_code, "Is the router running there?" in nobody.output) == (1, True)
