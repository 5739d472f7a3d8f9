"""The relay as a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from foothill.simulators.links import Link, LinkCounts, Links, Ready

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "foothill.simulators.wan"]


@contextmanager
def echo_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        while data := connection.recv(4096):
                            connection.sendall(data)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> Ready:
    until = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, "the relay ended early"
        assert time.monotonic() < until
        time.sleep(0.02)
    return msgspec.json.decode(path.read_bytes(), type=Ready)


def test_it_relays_counts_and_ends_when_told(tmp_path: Path) -> None:
    links, ready_file = tmp_path / "links.json", tmp_path / "ready.json"
    with echo_server() as port:
        plan = Links((Link("dublin>echo", f"127.0.0.1:{port}", 30.0), Link("tokyo>echo", f"127.0.0.1:{port}", 90.0)))
        links.write_bytes(msgspec.json.encode(plan))
        with subprocess.Popen([*COMMAND, str(links), "--ready-file", str(ready_file)]) as process:
            ready = wait_for(ready_file, process)
            with socket.create_connection((ready.host, ready.ports["tokyo>echo"]), 10) as connection:
                started = time.monotonic()
                connection.sendall(b"ping")
                assert connection.recv(10) == b"ping"
                assert time.monotonic() - started >= 0.178
            with urlopen(ready.control + "/links", timeout=10) as answer:
                counts = msgspec.json.decode(answer.read(), type=LinkCounts)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    by_name = {link.name: link for link in counts.links}
    assert by_name["tokyo>echo"].up_bytes == 4
    assert by_name["tokyo>echo"].down_bytes == 4
    assert by_name["tokyo>echo"].connections == 1
    assert by_name["dublin>echo"].connections == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "truncated"),
        (json.dumps({"links": [{"name": "a", "target": "nowhere", "rtt_ms": 1}]}), "target must be host:port"),
        (json.dumps({"links": [{"name": "a", "target": "h:1", "rtt": 1}]}), "unknown field"),
        (json.dumps({"links": [{"name": "a", "target": "h:1", "rtt_ms": 1}] * 2}), "a name of its own"),
    ],
)
def test_a_wrong_file_is_refused_with_its_fault(tmp_path: Path, content: str, message: str) -> None:
    links = tmp_path / "links.json"
    links.write_text(content)
    ended = subprocess.run([*COMMAND, str(links)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    links = tmp_path / "links.json"
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        links.write_bytes(msgspec.json.encode(Links((Link("a", "127.0.0.1:1", 1.0, port),))))
        ended = subprocess.run([*COMMAND, str(links)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert str(port) in ended.stderr
    assert "Traceback" not in ended.stderr
