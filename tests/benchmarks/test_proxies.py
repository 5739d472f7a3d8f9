"""Proxies are measured only while they answer what their nodes do, and canned nodes answer what real ones do."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx
import msgspec
import pytest

from benchmarks import bundles, machine, proxies
from benchmarks.bundles import Body
from benchmarks.canned_nodes import Connection, answer_of, name_of, prediction_of
from benchmarks.proxies import CONCURRENCIES, DIRECT, ProxyError, ProxyRow
from benchmarks.proxy_setups import BARE, NGINX, PROXIES, ROUTER, Debian, Own, Packaged, Proxy, Site, ask_predict
from benchmarks.report import Report, markdown
from benchmarks.rounds import MINIMAL, Profile, Ratio
from benchmarks.stage import Stage, perform
from benchmarks.tree import descendants
from contracts import headers
from contracts.predictions import Classification
from foothill.processes import Processes, file_ready
from model_compiler.digits.recipe import DigitsBundles
from runtime.links.access.hop import sign_hop
from runtime.links.process.ports import free_ports

SIZES = {"1 KB": 1_000, "20 KB": 20_000}
HOP_KEY = b"h" * 32
LIMITED = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answering(BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers["Content-Length"])
        self.rfile.read(size)
        self.send_response(200 if size <= int(sys.argv[2]) else 413)
        self.end_headers()
        self.wfile.write(sys.argv[3].encode())

HTTPServer(("127.0.0.1", int(sys.argv[1])), Answering).serve_forever()
"""


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = descendants(os.getpid())
    yield
    assert set(descendants(os.getpid())) <= {*before}


def compared(tmp_path: Path, *given: Proxy) -> Report:
    async def benchmark(stage: Stage, profile: Profile) -> Report:
        return await proxies.compare(stage, profile, SIZES, given)

    return perform(benchmark, MINIMAL, tmp_path)


def rows(report: Report) -> list[ProxyRow]:
    return [cast(ProxyRow, row) for row in report.rows]


@pytest.mark.integration
@pytest.mark.usefixtures("nothing_left")
def test_every_proxy_has_a_row_at_every_size_and_concurrency(tmp_path: Path) -> None:
    away = Proxy("away", Packaged(tmp_path / "nowhere", "python"), BARE.command, ask_predict)
    report = compared(tmp_path, ROUTER, BARE._replace(name=NGINX), away)
    *measured, missing = rows(report)
    names = (DIRECT, ROUTER.name, NGINX)
    expected = {(size, name, each) for size in SIZES for name in names for each in CONCURRENCIES}
    assert {(row.body, row.proxy, row.concurrency) for row in measured} == expected
    assert len(measured) == len(expected)
    assert missing.note == "not run: nowhere is missing or incomplete, make bench-proxies makes it"
    assert all(can_be_true(row) for row in measured)
    assert markdown(report).count("| 20 KB |") == 6


def can_be_true(row: ProxyRow) -> bool:
    """Of `direct` nothing is compared, of nginx nothing with itself."""
    figures = [row.requests_per_s, row.cpu_us, row.p50_ms, row.p99_ms, row.client_busy]
    own = {DIRECT: 0, NGINX: 1}.get(row.proxy, 4)
    ratios = [row.added_p50_us, row.of_nginx, row.p50_over_nginx_us, row.p99_of_nginx]
    expected = [Ratio] * own + [type(None)] * (4 - own)
    return all(figure is not None and figure > 0 for figure in figures) and [type(each) for each in ratios] == expected


def limited(most_bytes: int, answer: str) -> Proxy:
    def command(program: str, site: Site) -> Sequence[str]:
        return [program, "-c", LIMITED, str(site.port), str(most_bytes), answer]

    return Proxy("stand-in", Own(), command, ask_predict)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("most_bytes", "answer", "told"),
    [
        (1_000, msgspec.json.encode(prediction_of("a")).decode(), "answers 20000 bytes with 413"),
        (20_000, "{}", "answers no prediction"),
        (20_000, msgspec.json.encode(prediction_of("a")).decode().replace('"6"', '"7"'), "something else"),
    ],
)
@pytest.mark.usefixtures("nothing_left")
def test_a_proxy_that_answers_something_else_is_not_measured(
    most_bytes: int, answer: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ProxyError, match=told):
        compared(tmp_path, limited(most_bytes, answer))


def test_a_program_that_is_not_there_says_what_to_install() -> None:
    missing = Debian("no-such-proxy", "no-such-package").missing
    assert missing == "not run: no-such-proxy is not installed, apt-get install no-such-package"
    assert Debian("sh", "dash").missing == ""


@pytest.mark.peers
@pytest.mark.integration
@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
@pytest.mark.usefixtures("nothing_left")
def test_a_real_proxy_is_measured(proxy: Proxy, tmp_path: Path) -> None:
    if proxy.missing:
        pytest.skip(proxy.missing)
    measured = [row for row in rows(compared(tmp_path, proxy)) if row.proxy == proxy.name]
    assert len(measured) == len(SIZES) * len(CONCURRENCIES)


@contextmanager
def staged(work: Path, digits: Path) -> Iterator[Stage]:
    with Processes(work / "logs") as processes:
        yield Stage(work, digits, processes, machine.cores())


def asked(url: str, body: Body) -> httpx.Response:
    """As a router asks a node."""
    mark = sign_hop(HOP_KEY, "router", "r1", time.time())
    sent = {**body.headers, headers.REQUEST_ID: "r1", headers.HOP: mark}
    return httpx.post(url + body.path, headers=sent, content=body.content)


@pytest.mark.integration
def test_canned_nodes_tell_a_router_what_real_ones_tell(tmp_path: Path, bundles_of_digits: Path) -> None:
    with staged(tmp_path, bundles_of_digits) as stage:
        packed = bundles.digits(stage.digits).packed
        config = {"tier": "edge", "bundles": [str(packed.directory)], "hop_key": HOP_KEY.hex()}
        node = stage.start_node("edge", config, stage.cores.server)
        canned = stage.start("nodes", "benchmarks.canned_nodes", "2", core=stage.cores.client)
        real = asked(node.url, bundles.digits_png())
        first, second = [asked(url, ask_predict(100_000)) for url in canned.url.split()]
    assert real.status_code == first.status_code == 200
    assert {name.lower() for name in first.headers} == {name.lower() for name in real.headers}
    assert headers.LOAD in first.headers
    for name in ("Content-Type", headers.TIER, headers.REASON, headers.CERTIFIED, headers.DEGRADED):
        assert first.headers[name] == real.headers[name]
    told = msgspec.json.decode(real.content, type=Classification)
    assert {*real.json()} == {*first.json()}
    assert told.reason == first.json()["reason"]
    assert (first.headers[headers.NODE], second.headers[headers.NODE]) == (name_of(0), name_of(1))


@pytest.fixture
def bundles_of_digits(bundles: DigitsBundles) -> Path:
    return bundles.edge.directory.parent


@pytest.mark.integration
def test_the_router_takes_canned_nodes_for_nodes(tmp_path: Path) -> None:
    with staged(tmp_path, tmp_path) as stage:
        nodes = stage.start("nodes", "benchmarks.canned_nodes", "2", core=stage.cores.client)
        site = Site(tmp_path, free_ports(2), nodes.url.split())
        ready = file_ready(tmp_path / "router.url")
        command = ROUTER.command(ROUTER.program.path, site)
        with stage.program("router", command, ready, core=stage.cores.server):
            told = [asked(site.url, ask_predict(1_000)) for _ in range(3)]
    assert {answer.headers[headers.REASON] for answer in told} == {"no-cloud"}
    for answer in told:
        assert answer.headers[headers.NODE] in (name_of(0), name_of(1))
        assert headers.LOAD not in answer.headers
        assert answer.headers[headers.SERVER_TIMING].startswith("route;dur=")
        assert answer.headers[headers.CONFIDENCE] == repr(prediction_of(name_of(0)).confidence)


class Written(asyncio.WriteTransport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.closed = True


class Peer:
    """The other side of one connection to a canned node."""

    def __init__(self) -> None:
        self.transport = Written()
        self._buffer = bytearray(1 << 12)
        self._connection = Connection(answer_of("a"), self._buffer)
        self._connection.connection_made(self.transport)

    def send(self, data: bytes) -> int:
        """How many answers there are behind it."""
        self._buffer[: len(data)] = data
        self._connection.buffer_updated(len(data))
        return len(self.transport.told)


def test_a_canned_node_answers_when_all_of_a_request_is_there() -> None:
    peer = Peer()
    head, body = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 10\r\n\r\n", b"0123456789"
    assert peer.send(head + body) == 1
    assert peer.send(head) == 1
    assert peer.send(body[:4]) == 1
    assert peer.send(body[4:]) == 2
    assert [peer.send(head[at : at + 1]) for at in range(len(head))] == [2] * len(head)
    assert peer.send(body) == 3
    assert peer.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n") == 4
    assert {*peer.transport.told} == {answer_of("a")}


def test_a_canned_node_hangs_up_on_what_it_cannot_tell_the_end_of() -> None:
    peer = Peer()
    assert peer.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 0
    assert peer.transport.closed
