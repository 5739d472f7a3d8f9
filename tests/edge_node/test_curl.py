"""curl against a real node, in plain HTTP and over TLS: what it sends by itself, and what its options make it send."""

from __future__ import annotations

import gzip
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import simplejpeg

from tests.edge_node.bundle_factory import pack
from tests.edge_node.test_node_process import EDGE, Fleet, Process, enrol, node_config, picture
from tests.runtime.links.certificates import Authority

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl"),
]

PREDICT, INFER, NOBODY = "/v1/predict/digits", "/v2/models/digits/infer", "/v1/predict/nobody"
SIDE = 1200
JPEG, JSON = "Content-Type: image/jpeg", "Content-Type: application/json"
OPTIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "without asking first": ("-H", "Expect:"),
    "asking first": ("-H", "Expect: 100-continue"),
    "HTTP/1.0": ("--http1.0",),
    "chunked": ("-H", "Transfer-Encoding: chunked"),
    "compressed answers": ("--compressed",),
}


class Site(NamedTuple):
    """A node's configuration, who vouches for its certificate, and what its callers send: small, above 1 MB, and above
    the bytes and the pixels that the node takes."""

    config: Path
    authority: Authority
    small: Path
    large: Path
    too_large: Path
    too_wide: Path
    tensors: Path


class Curled(NamedTuple):
    """`said` on stdout, `told` on stderr: what was sent (`>`) and what came back (`<`)."""

    said: str
    told: str

    @property
    def answer(self) -> dict[str, Any]:
        return without_id(json.loads(self.said))

    @property
    def statuses(self) -> list[str]:
        return [line.split(" ")[2] for line in self.told.splitlines() if line.startswith("< HTTP/")]


class Node(NamedTuple):
    url: str
    site: Site

    def curl(self, path: str, body: Path, *options: str) -> Curled:
        known = ("--silent", "--verbose", "--max-time", "30", "--cacert", str(self.site.authority.file))
        command = ["curl", *known, "--data-binary", f"@{body}", *options, self.url + path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return Curled(done.stdout, done.stderr)

    def answer(self, path: str, body: Path, kind: str) -> dict[str, Any]:
        """What another client is told."""
        name, _, value = kind.partition(": ")
        trust = ssl.create_default_context(cafile=str(self.site.authority.file))
        answer = httpx.post(self.url + path, content=body.read_bytes(), headers={name: value}, verify=trust)
        assert answer.status_code == 200, answer.text
        return without_id(answer.json())


def without_id(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("id", "request_id")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    fleet = Fleet(directory)
    try:
        assert enrol(fleet, directory).returncode == 0
        pack(directory / "bundle")
        fleet.publish(directory / "bundle")
        config = node_config(directory)
        config.write_text(f"{config.read_text()}max_pixels = {SIDE * SIDE}\n")
        node = Process(*EDGE, "run", str(config))
        node.url()
        fleet.roll_out("digits-edge@1")
        node.end()
        yield Site(config, Authority(directory, "authority"), *sent(directory))
    finally:
        fleet.stop()


def sent(directory: Path) -> Iterator[Path]:
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    tensor = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": np.linspace(-1, 1, 64).tolist()}
    bodies = {
        "small.jpg": picture(),
        "large.jpg": bytes(simplejpeg.encode_jpeg(noise, quality=85)),
        "too-large.jpg": bytes((16 << 20) + 1),
        "too-wide.jpg": bytes(simplejpeg.encode_jpeg(np.zeros((SIDE, SIDE + 1, 3), np.uint8))),
        "tensors.json": json.dumps({"inputs": [tensor]}).encode(),
    }
    for name, body in bodies.items():
        (directory / name).write_bytes(body)
        yield directory / name


@pytest.fixture(scope="module", params=["http", "https"])
def node(request: pytest.FixtureRequest, site: Site) -> Iterator[Node]:
    config = site.config.with_name(f"{request.param}.toml")
    files = site.authority.issue("node")
    https = '[https]\ncert_file = "{}"\nkey_file = "{}"\n'.format(*files) if request.param == "https" else ""
    config.write_text(site.config.read_text() + https)
    node = Process(*EDGE, "run", str(config))
    try:
        url = node.url()
        assert url.startswith(f"{request.param}://")
        yield Node(url, site)
    finally:
        code = node.end()
    assert code == 0, node.said
    assert "Traceback" not in node.said, node.said


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_picture_is_answered_alike_however_it_is_sent(node: Node, options: tuple[str, ...]) -> None:
    found = node.curl(PREDICT, node.site.small, "-H", JPEG, *options)
    assert found.statuses[-1] == "200", found
    assert found.answer == node.answer(PREDICT, node.site.small, JPEG)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tensors_are_answered_alike_however_they_are_sent(node: Node, options: tuple[str, ...]) -> None:
    found = node.curl(INFER, node.site.tensors, "-H", JSON, *options)
    assert found.statuses[-1] == "200", found
    assert found.answer == node.answer(INFER, node.site.tensors, JSON)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_so_is_a_body_of_more_than_a_megabyte(node: Node, options: tuple[str, ...]) -> None:
    """From there on curl asks first of itself, and waits a second where nobody says yes."""
    assert node.site.large.stat().st_size > 1 << 20
    found = node.curl(PREDICT, node.site.large, "-H", JPEG, *options)
    asked = "> Expect: 100-continue" in found.told
    assert asked == (options not in (OPTIONS["without asking first"], OPTIONS["HTTP/1.0"]))
    assert found.statuses == (["100", "200"] if asked else ["200"])
    assert found.answer == node.answer(PREDICT, node.site.large, JPEG)


def test_an_http_1_0_caller_gets_an_answer_that_ends_with_its_connection(node: Node) -> None:
    found = node.curl(PREDICT, node.site.small, "-H", JPEG, "--http1.0")
    assert "> POST /v1/predict/digits HTTP/1.0" in found.told
    assert "Closing connection" in found.told


def test_several_requests_take_one_connection_whatever_they_are_like(node: Node) -> None:
    again = [word for path in (INFER, NOBODY, PREDICT) for word in (f"{node.url}{path}", "--output", "/dev/stdout")]
    found = node.curl(PREDICT, node.site.small, "-H", JPEG, "--output", "/dev/stdout", *again)
    assert found.told.count("* Connected to") == 1
    assert found.statuses == ["400", "404", "200", "200"]


def test_a_body_packed_by_its_caller_is_unpacked(node: Node, tmp_path: Path) -> None:
    packed = tmp_path / "tensors.json.gz"
    packed.write_bytes(gzip.compress(node.site.tensors.read_bytes()))
    found = node.curl(INFER, packed, "-H", JSON, "-H", "Content-Encoding: gzip")
    assert found.answer == node.answer(INFER, node.site.tensors, JSON)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_refusal_reaches_who_sends_too_much_or_to_nobody(node: Node, options: tuple[str, ...]) -> None:
    refusals = (
        (PREDICT, node.site.too_large, "413", "body_too_large"),
        (PREDICT, node.site.too_wide, "400", "bad_image"),
        (NOBODY, node.site.large, "404", "model_not_found"),
    )
    for path, body, status, code in refusals:
        found = node.curl(path, body, "-H", JPEG, *options)
        assert (found.statuses[-1], json.loads(found.said)["code"]) == (status, code)


@pytest.mark.parametrize("hot", ["plain", "without asking first", "compressed answers"])
def test_what_curl_sends_of_itself_takes_the_swift_way(node: Node, hot: str) -> None:
    """Answers that went through aiohttp name it."""
    assert "< Server: " not in node.curl(PREDICT, node.site.small, "-H", JPEG, *OPTIONS[hot]).told
    assert "< Server: " in node.curl(PREDICT, node.site.small, "-H", JPEG, *OPTIONS["chunked"]).told
