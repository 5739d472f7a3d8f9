"""The access log over real sockets: one line a request, whichever way it took, and nothing that is not to be told."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import signal
from datetime import datetime, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.timing import parse_server_timing
from contracts.traces import parse_traceparent
from router import wiring
from router.config import AccessLogConfig
from router.seeing.access_log import Kind, Noted, Renderer, shown
from runtime.links.escalation.holder import Certificates
from runtime.links.process.settings import SettingsError
from tests.router.rig import Server, certificate, static
from tests.router.test_app import Route, cloud, edge, router
from tests.router.test_shortcut import short
from tests.runtime.raw_caller import RawCaller, until

__all__ = ["cloud", "edge", "router", "short"]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


FIELDS = (
    *("time", "request_id", "trace_id", "method", "route", "model", "tenant", "client", "status", "tier", "node"),
    *("reason", "region", "bytes_in", "bytes_out", "phases_ms", "total_ms"),
)


@pytest.fixture(autouse=True)
def certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every router knows the live certificate, with a threshold of 0.8."""
    monkeypatch.setattr(wiring, "Certificates", lambda: Certificates([certificate()]))


def logged(path: Path, **changed: Any) -> dict[str, Any]:
    return {"access_log": AccessLogConfig(path=str(path), **changed)}


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def lines_of(path: Path, count: int) -> list[dict[str, Any]]:
    """Once there are so many."""
    await until(lambda: len(told(path)) >= count)
    return told(path)


async def test_the_long_way_and_the_short_one_tell_the_same(
    router: Route, edge: Server, cloud: Server, tmp_path: Path, short: list[bool]
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url], **logged(tmp_path / "log"))
    edge.confidence = 0.99
    before = datetime.now(timezone.utc)
    answers = [await client.predict() for _ in range(2)]
    assert short == [False, True]
    lines = await lines_of(tmp_path / "log", 2)
    for line, (response, body) in zip(lines, answers, strict=True):
        assert tuple(line) == FIELDS
        phases = parse_server_timing(response.headers[headers.SERVER_TIMING])
        assert line.pop("total_ms") == phases.pop("total")
        assert line.pop("phases_ms") == phases
        assert before <= datetime.fromisoformat(line.pop("time").replace("Z", "+00:00"))
        span = parse_traceparent(response.headers[headers.TRACEPARENT])
        assert span is not None
        assert line.pop("trace_id") == span.trace_id
        assert line == {
            "request_id": response.headers[headers.REQUEST_ID],
            "method": "POST",
            "route": "/v1/predict/{model}",
            "model": "digits",
            "tenant": "",
            "client": "127.0.0.0/24",
            "status": 200,
            "tier": "edge",
            "node": "edge-fra",
            "reason": "confident",
            "region": "eu-central",
            "bytes_in": 3,
            "bytes_out": len(body),
        }


async def test_escalations_failures_and_refusals_are_told(
    router: Route, edge: Server, cloud: Server, tmp_path: Path, short: list[bool]
) -> None:
    nodes = [static("edge-fra", edge.url)]
    client = await router(nodes, [cloud.url], cloud_region="eastus", **logged(tmp_path / "log", sample=0.0))
    edge.confidence = 0.99
    await client.predict()
    edge.confidence = 0.3
    await client.predict()  # a success: not drawn
    cloud.status = edge.status = 400
    await client.predict()  # the node's own refusal
    cloud.status = edge.status = 503
    await client.predict()
    await client.predict({headers.DEADLINE_MS: "soon"})
    await client.ask("GET", "/v1/explain")
    await client.ask("GET", "/nowhere")
    lines = await lines_of(tmp_path / "log", 5)
    assert [(line["status"], line["reason"], line["region"], line["route"]) for line in lines] == [
        (400, "refused", "eu-central", "/v1/predict/{model}"),
        (503, "refused", "", "/v1/predict/{model}"),
        (400, "bad_header", "", "/v1/predict/{model}"),
        (400, "bad_request", "", "/v1/explain"),
        (404, "not_found", "", ""),
    ]
    assert short[:3] == [False, True, True]
    assert all(line["total_ms"] > 0 for line in lines)


async def test_an_escalated_answer_is_the_clouds(router: Route, edge: Server, cloud: Server, tmp_path: Path) -> None:
    nodes = [static("edge-fra", edge.url)]
    client = await router(nodes, [cloud.url], cloud_region="eastus", **logged(tmp_path / "log"))
    edge.confidence = 0.3
    for _ in range(2):
        await client.predict()
    for line in await lines_of(tmp_path / "log", 2):
        assert (line["tier"], line["region"], line["node"], line["reason"]) == ("cloud", "eastus", "cloud", "doubtful")
        assert "escalate" in line["phases_ms"]


async def test_callers_that_leave_are_told(router: Route, edge: Server, tmp_path: Path, short: list[bool]) -> None:
    client = await router([static("edge-fra", edge.url)], [], **logged(tmp_path / "log", sample=0.0))
    await client.predict()
    edge.hold = asyncio.Event()
    for sent in ("image/jpeg", "image/png"):
        edge.arrived.clear()
        asking = asyncio.create_task(client.predict({"Content-Type": sent}))
        await asyncio.wait_for(edge.arrived.wait(), 10)
        asking.cancel()
    assert short == [False, True, False]
    found = await lines_of(tmp_path / "log", 2)
    assert [(line["status"], line["reason"], line["bytes_in"]) for line in found] == [(499, "client-gone", 3)] * 2


async def test_a_caller_that_leaves_while_its_body_comes_is_told(router: Route, edge: Server, tmp_path: Path) -> None:
    client = await router([static("edge-fra", edge.url)], [], **logged(tmp_path / "log", sample=0.0))
    caller = await RawCaller.connect(client.url)
    head = "POST /v1/predict/digits HTTP/1.1\r\nHost: r\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
    await caller.send(head.encode() + b"half")
    await asyncio.sleep(0.05)
    caller.writer.close()
    assert (await lines_of(tmp_path / "log", 1))[0]["status"] == 499


async def test_what_callers_say_of_themselves_stays_within_its_field(
    router: Route, edge: Server, tmp_path: Path
) -> None:
    client = await router(
        [static("edge-fra", edge.url)], [], trusted_proxies=("127.0.0.1",), **logged(tmp_path / "log")
    )
    sent = {headers.REQUEST_ID: "mine-1", "traceparent": f"00-{TRACE}-{SPAN}-01", "X-Forwarded-For": "203.0.113.77"}
    for _ in range(2):
        await client.predict(sent)
    await client.ask("GET", "/v2/models/%ff%0a%22,/ready")
    first, second, odd = await lines_of(tmp_path / "log", 3)
    assert first["client"] == second["client"] == "203.0.113.0/24"
    assert first["trace_id"] == second["trace_id"] == TRACE
    assert first["request_id"] == "mine-1"
    assert odd["model"] == '%FF\n",'
    assert odd["status"] == 404


async def test_whose_request_it_was_is_told_where_somebody_asks(
    router: Route, edge: Server, tmp_path: Path, short: list[bool]
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "acme"\nsha256 = "{hashlib.sha256(b"s3cret").hexdigest()}"\n')
    client = await router(
        [static("edge-fra", edge.url)], [], tokens_file=str(tokens), **logged(tmp_path / "log", client="none")
    )
    known = {"Authorization": "Bearer s3cret"}
    for _ in range(2):
        await client.predict(known)
    await client.ask("GET", "/v1/explain?model=digits", sent=known)
    await client.predict({"Authorization": "Bearer wrong"})
    assert short == [False, True, False]
    lines = await lines_of(tmp_path / "log", 4)
    assert [(line["tenant"], line["status"], line["client"]) for line in lines] == [
        *[("acme", 200, "")] * 3,
        ("", 401, ""),
    ]
    assert "s3cret" not in (tmp_path / "log").read_text()


async def test_probes_are_told_where_they_fail(router: Route, edge: Server, tmp_path: Path) -> None:
    client = await router([], [], **logged(tmp_path / "log"))
    for path in ("/healthz", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2"):
        await client.ask("GET", path)
    lines = await lines_of(tmp_path / "log", 2)
    assert [(line["route"], line["status"]) for line in lines] == [("/v2/health/ready", 503), ("/v2", 200)]


async def test_a_file_that_is_rotated_is_reopened_on_sighup(router: Route, edge: Server, tmp_path: Path) -> None:
    path = tmp_path / "log"
    client = await router([static("edge-fra", edge.url)], [], **logged(path))
    await client.predict()
    await lines_of(path, 1)
    path.rename(tmp_path / "log.1")
    os.kill(os.getpid(), signal.SIGHUP)
    await until(path.exists)
    await client.predict()
    await lines_of(path, 1)
    await lines_of(tmp_path / "log.1", 1)


async def test_a_disk_that_hangs_costs_lines_and_no_answers(router: Route, edge: Server, tmp_path: Path) -> None:
    """A pipe that is full hangs as a disk does."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    fcntl.fcntl(filler, fcntl.F_SETPIPE_SZ, 4096)
    os.write(filler, b"x" * 4096)
    client = await router([static("edge-fra", edge.url)], [], **logged(path))
    for _ in range(10):
        assert (await client.predict())[0].status == 200
    os.close(filler)
    os.close(reader)  # now writing fails
    for _ in range(200):
        if b"foothill_access_log_dropped_total 10.0" in (await client.ask("GET", "/metrics"))[1]:
            return
        await asyncio.sleep(0.02)
    pytest.fail("they are not counted")


async def test_a_path_that_cannot_be_written_is_a_mistake_of_the_configuration(router: Route, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"access_log\.path"):
        await router([], [], **logged(tmp_path / "absent" / "log"))


async def test_without_a_log_no_thread_and_no_file(router: Route, edge: Server, tmp_path: Path) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    assert (await client.predict())[0].status == 200
    assert (await client.ask("GET", "/metrics"))[1].count(b"foothill_access_log_dropped_total 0.0") == 1


@pytest.mark.parametrize(
    ("address", "network", "full"),
    [
        ("203.0.113.77", "203.0.113.0/24", "203.0.113.77"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48", "2001:db8:1:2:3::4"),
        ("::1", "::/48", "::1"),
    ],
)
def test_addresses_are_told_as_far_as_they_may_be(address: str, network: str, full: str) -> None:
    given_ = ip_address(address)
    assert (shown(given_, "none"), shown(given_, "network"), shown(given_, "full")) == ("", network, full)
    assert shown(None, "full") == ""


@given(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.dictionaries(st.sampled_from(["route", "infer", "total"]), st.floats(0, 1e6)),
    st.sampled_from(["", "queue;dur=0.500, infer;dur=1.500", "nonsense", "queue;dur=x, infer;dur=1.5"]),
)
def test_each_line_is_one_json_object(name: str, phases_ms: dict[str, float], written: str) -> None:
    kind = Kind("POST", name, name, name, name, 200, name, name, name, name)
    line = Renderer()(Noted(kind, 0.0, "r1", name, 1, 2, phases_ms, written))
    assert line.count(b"\n") == 1
    told = json.loads(line)
    assert told["model"] == name
    assert told["time"] == "1970-01-01T00:00:00.000Z"
    assert told["total_ms"] == pytest.approx(phases_ms.get("total", 0.0), abs=0.0005)
    assert "total" not in told["phases_ms"]
