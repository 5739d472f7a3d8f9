"""Pictures that are fetched over HTTP, and files in a folder."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.rtsp.clips import walkers
from edge_node.cameras.sources.address import parse
from edge_node.cameras.sources.opening import open_source
from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Wishes
from tests.edge_node.cameras.conftest import PASSWORD, USER

NOBODY = ("", "")
QUICK = Wishes(interval_s=0.02, stall_s=2.0, open_timeout_s=2.0, decoder="software")


def jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture)[1].tobytes()


PICTURES = [jpeg(picture) for picture in walkers(8)]


class Web(ThreadingHTTPServer):
    """A camera's web server. `/snap.jpg`, `/mjpeg`, and what goes wrong; `wants` Basic or Digest from everybody."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.wants = ""
        self.asked = 0


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self.server.asked += 1
        if not self._is_let_in():
            challenge = 'realm="door"' + (', qop="auth", nonce="n1"' if self.server.wants == "Digest" else "")
            self._send(401, b"", "text/plain", **{"WWW-Authenticate": f"{self.server.wants} {challenge}"})
        elif self.path == "/snap.jpg":
            self._send(200, PICTURES[self.server.asked % len(PICTURES)], "image/jpeg")
        elif self.path == "/sometimes":
            self._send(200, PICTURES[0] if self.server.asked % 2 else b"broken", "image/jpeg")
        elif self.path == "/words":
            self._send(200, b"hello", "image/jpeg")
        elif self.path == "/mjpeg":
            self._stream()
        else:
            self._send(404, b"", "text/plain")

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()
        self.close_connection = True
        try:
            for number in range(1000):
                data = PICTURES[number % len(PICTURES)]
                head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.02)
        except OSError:
            return

    def _is_let_in(self) -> bool:
        told = self.headers.get("Authorization", "")
        if self.server.wants == "Basic":
            return told == "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return not self.server.wants or self._knows(dict(re.findall(r'(\w+)="?([^",]+)"?', told)))

    def _knows(self, told: dict[str, str]) -> bool:
        """RFC 7616, 3.4.1, with MD5."""
        first = hashlib.md5(f"{USER}:door:{PASSWORD}".encode()).hexdigest()
        second = hashlib.md5(f"GET:{told.get('uri')}".encode()).hexdigest()
        parts = (first, "n1", told.get("nc"), told.get("cnonce"), "auth", second)
        return told.get("response") == hashlib.md5(":".join(map(str, parts)).encode()).hexdigest()

    def _send(self, status: int, body: bytes, content_type: str, **named: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def some(url: str, count: int, login: tuple[str, str] = NOBODY, wishes: Wishes = QUICK) -> tuple[str, list[Shot], int]:
    """What it is, pictures of it, and how many pieces were corrupt."""
    corrupt: list[int] = []
    with closing(open_source(parse(url), login, wishes, corrupt=lambda: corrupt.append(1))) as source:
        shots = list(islice(source.shots(threading.Event()), count))
        return source.facts.codec, shots, len(corrupt)


@pytest.mark.parametrize(("path", "codec"), [("/snap.jpg", "jpeg"), ("/mjpeg", "mjpeg")])
@pytest.mark.parametrize("wants", ["", "Basic", "Digest"])
def test_snapshots_and_streams_are_told_apart_and_both_ask_for_a_password(
    web: Web, path: str, codec: str, wants: str
) -> None:
    web.wants = wants
    found, shots, corrupt = some(web.url + path, 5, (USER, PASSWORD) if wants else NOBODY)
    assert (found, len(shots), corrupt) == (codec, 5, 0)
    assert shots[0].size == (320, 240)
    assert shots[0].luma().shape == (240, 320)
    assert shots[0].picture("rgb")[..., ::-1].tolist() == shots[0].picture("bgr").tolist()
    assert time.time() - shots[-1].at_s < 2.0


@pytest.mark.parametrize("path", ["/snap.jpg", "/mjpeg"])
def test_a_wrong_password_is_denied(web: Web, path: str) -> None:
    web.wants = "Basic"
    for login in (NOBODY, (USER, "wr0ng")):
        with pytest.raises(Trouble) as raised:
            some(web.url + path, 1, login)
        assert raised.value.kind == "denied"
        assert "wr0ng" not in raised.value.why


def test_a_broken_picture_costs_itself_and_many_in_a_row_are_no_camera(web: Web) -> None:
    _, shots, corrupt = some(f"{web.url}/sometimes", 5)
    assert len(shots) == 5
    assert corrupt >= 4
    with pytest.raises(Trouble, match="no JPEG or PNG"):
        some(f"{web.url}/words", 1)


def test_a_web_server_that_has_nothing_or_is_away_is_told(web: Web, unused_tcp_port: int) -> None:
    with pytest.raises(Trouble, match="status 404"):
        some(f"{web.url}/absent", 1)
    with pytest.raises(Trouble) as raised:
        some(f"http://127.0.0.1:{unused_tcp_port}/snap.jpg", 1)
    assert raised.value.kind == "lost"


def put(directory: Path, name: str, data: bytes, age_s: float) -> None:
    path = directory / name
    path.write_bytes(data)
    os.utime(path, (time.time() - age_s, time.time() - age_s))


def test_a_folder_gives_its_pictures_by_name_and_those_that_come_later(tmp_path: Path) -> None:
    for name, age_s in (("b.jpg", 30.0), ("a.JPG", 20.0), ("notes.txt", 10.0)):
        put(tmp_path, name, PICTURES[0], age_s)
    put(tmp_path, "c.png", b"no picture", 10.0)
    corrupt: list[int] = []
    with closing(open_source(parse(str(tmp_path)), NOBODY, QUICK, corrupt=lambda: corrupt.append(1))) as source:
        shots = source.shots(threading.Event())
        first = [next(shots) for _ in range(2)]
        put(tmp_path, "d.jpg", PICTURES[1], 5.0)
        put(tmp_path, "e.jpg", PICTURES[1][:1000], 0.0)
        third = next(shots)
    now_s = time.time()
    assert [round((now_s - shot.at_s) / 5) for shot in (*first, third)] == [4, 6, 1]
    assert len(corrupt) == 1
    with pytest.raises(Trouble, match="cannot be read"):
        open_source(parse(str(tmp_path / "x"), kind="folder"), NOBODY, QUICK, corrupt=lambda: None)


def test_whoever_is_stopped_stops(web: Web, tmp_path: Path) -> None:
    for url in (f"{web.url}/snap.jpg", str(tmp_path), "pattern:"):
        stopped = threading.Event()
        with closing(open_source(parse(url), NOBODY, Wishes(interval_s=60.0), corrupt=lambda: None)) as source:
            shots = source.shots(stopped)
            if url != str(tmp_path):
                next(shots)
            timer = threading.Timer(0.05, stopped.set)
            timer.start()
            began_s = time.monotonic()
            assert len(list(shots)) <= 1
            assert time.monotonic() - began_s < 5.0
            timer.join()
