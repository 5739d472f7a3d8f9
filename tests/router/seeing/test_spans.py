"""Spans, as a real collector decodes them; and a router that does well without one."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import headers
from contracts.traces import parse_traceparent, trace_id_of
from router import wiring
from router.config import TracingConfig
from router.seeing import collector as port
from router.seeing.collector import endpoint_url
from runtime.links.escalation.holder import Certificates
from runtime.links.process.settings import SettingsError
from tests.router.rig import TOKYO, Server, Start, certificate, static
from tests.router.seeing.collector import Received, attributes_of, collecting
from tests.router.test_app import Client, Route, cloud, edge, router
from tests.router.test_shortcut import short
from tests.runtime.raw_caller import until

__all__ = ["cloud", "edge", "router", "short"]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    monkeypatch.setattr(port, "EVERY_S", 0.05)
    with collecting() as made:
        yield made


@pytest.fixture(autouse=True)
def certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every router knows the live certificate, with a threshold of 0.8."""
    monkeypatch.setattr(wiring, "Certificates", lambda: Certificates([certificate()]))


def traced(received: Received, **changed: Any) -> dict[str, Any]:
    return {"tracing": TracingConfig(endpoint=received.url, **{"sample": 1.0, **changed})}


async def spans_of(received: Received, count: int) -> dict[str, Any]:
    """By name, once there are so many."""
    await until(lambda: len(received.spans) >= count)
    assert len(received.spans) == count
    return {span.name: span for span in received.spans}


async def test_a_traced_request_joins_the_callers_trace_and_the_nodes_joins_it(
    router: Route, edge: Server, received: Received
) -> None:
    client = await router([static("edge-fra", edge.url)], [], **traced(received, service_name="mine"))
    began_ns = time.time_ns()
    response, body = await client.predict({headers.TRACEPARENT: SAMPLED, headers.REQUEST_ID: "r1"})
    spans = await spans_of(received, 3)
    own, route, ask = (spans[name] for name in ("POST /v1/predict/{model}", "route", "ask-edge"))
    assert (own.trace_id.hex(), own.parent_span_id.hex(), own.kind) == (TRACE, SPAN, own.SPAN_KIND_SERVER)
    assert began_ns <= own.start_time_unix_nano <= ask.start_time_unix_nano <= ask.end_time_unix_nano
    assert ask.end_time_unix_nano <= own.end_time_unix_nano <= time.time_ns()
    assert {each.parent_span_id for each in (route, ask)} == {own.span_id}
    sent = f"00-{TRACE}-{own.span_id.hex()}-01"
    assert edge.seen[0].headers.getall(headers.TRACEPARENT) == [sent]
    assert response.headers[headers.TRACEPARENT] == sent
    told = attributes_of(own)
    assert {name: value for name, value in told.items() if not name.startswith("foothill.phase.")} == {
        "http.request.method": "POST",
        "http.route": "/v1/predict/{model}",
        "url.path": "/v1/predict/digits",
        "url.scheme": "http",
        "http.request.body.size": 3,
        "http.response.status_code": 200,
        "http.response.body.size": len(body),
        "foothill.request_id": "r1",
        "foothill.model": "digits",
        "foothill.tier": "edge",
        "foothill.node": "edge-fra",
        "foothill.region": "eu-central",
        "foothill.reason": "no-confidence",
    }
    assert {"foothill.phase.infer_ms", "foothill.phase.total_ms"} < told.keys()
    assert attributes_of(ask) == {
        "foothill.node": "edge-fra",
        "foothill.region": "eu-central",
        "http.response.status_code": 200,
    }
    assert received.resources[0]["service.name"] == "mine"
    assert received.paths[0] == "/v1/traces"


async def test_a_trace_that_begins_here_has_the_id_of_its_request(
    router: Route, edge: Server, received: Received
) -> None:
    client = await router([static("edge-fra", edge.url)], [], **traced(received))
    response, _ = await client.predict()
    own = (await spans_of(received, 3))["POST /v1/predict/{model}"]
    assert own.trace_id.hex() == response.headers[headers.REQUEST_ID] == trace_id_of(own.trace_id.hex())
    assert not own.parent_span_id


async def test_every_hop_is_a_span(
    router: Route, start: Start, edge: Server, cloud: Server, received: Received
) -> None:
    other = await start("edge-tok")
    edge.status, other.confidence = 503, 0.3
    nodes = [static("edge-fra", edge.url), static("edge-tok", other.url, TOKYO, region="ap")]
    client = await router(nodes, [cloud.url], cloud_region="eastus", **traced(received))
    response, told = await client.predict()
    assert (response.status, response.headers[headers.TIER]) == (200, "cloud"), told
    await spans_of(received, 5)
    hops = {
        (span.name, attributes_of(span)["foothill.region"], attributes_of(span)["http.response.status_code"])
        for span in received.spans
        if span.kind == span.SPAN_KIND_CLIENT
    }
    assert hops == {("ask-edge", "eu-central", 503), ("ask-edge", "ap", 200), ("escalate", "eastus", 200)}
    failed = [span for span in received.spans if span.status.code == span.status.STATUS_CODE_ERROR]
    assert [attributes_of(span)["error.type"] for span in failed] == ["503"]
    own = parse_traceparent(response.headers[headers.TRACEPARENT])
    seen = {server.seen[0].headers[headers.TRACEPARENT] for server in (edge, other, cloud)}
    assert own is not None
    assert seen == {response.headers[headers.TRACEPARENT]}


async def test_failures_are_spans_and_refusals_are_no_errors(router: Route, edge: Server, received: Received) -> None:
    client = await router([static("edge-fra", edge.url)], [], **traced(received))
    await client.predict({headers.DEADLINE_MS: "soon"})
    await until(lambda: len(received.spans) == 1)
    assert attributes_of(received.spans[0])["http.response.status_code"] == 400
    assert received.spans[0].status.code == received.spans[0].status.STATUS_CODE_UNSET
    edge.status = 503
    await client.predict()
    await until(lambda: any(span.name.startswith("POST") and span.status.code for span in received.spans))


async def test_only_drawn_requests_leave_the_short_way(
    router: Route, edge: Server, received: Received, short: list[bool]
) -> None:
    client = await router([static("edge-fra", edge.url)], [], **traced(received, sample=0.5))
    edge.confidence = 0.99
    low, high = TRACE[:16] + "0" * 15 + "1", TRACE[:16] + "f" * 16
    answers = {}
    for trace in (high, high, low, high):
        sent = f"00-{trace}-{SPAN}-01"
        response, _ = await client.predict({headers.TRACEPARENT: sent})
        answers[trace] = (sent, response.headers[headers.TRACEPARENT], edge.seen[-1].headers[headers.TRACEPARENT])
    assert short == [False, True, False, True]
    assert len(set(answers[high])) == 1
    sent, told, onward = answers[low]
    assert told == onward != sent
    await spans_of(received, 3)


async def test_a_caller_that_does_not_record_is_not_recorded_and_one_that_does_is_followed_where_that_is_wanted(
    router: Route, edge: Server, received: Received
) -> None:
    nodes = [static("edge-fra", edge.url)]
    all_of_them = await router(nodes, [], **traced(received))
    await all_of_them.predict({headers.TRACEPARENT: f"00-{TRACE}-{SPAN}-00"})
    none = await router(nodes, [], **traced(received, sample=0.0))
    await none.predict({headers.TRACEPARENT: SAMPLED})
    following = await router(nodes, [], **traced(received, sample=0.0, follow_callers=True))
    await following.predict()
    await following.predict({headers.TRACEPARENT: SAMPLED})
    assert {span.trace_id.hex() for span in (await spans_of(received, 3)).values()} == {TRACE}


async def test_a_body_that_comes_late_is_part_of_the_span(router: Route, edge: Server, received: Received) -> None:
    client = await router([static("edge-fra", edge.url)], [], **traced(received))

    async def slowly() -> Any:
        yield b"pn"
        await asyncio.sleep(0.05)
        yield b"g"

    sent = {"Content-Type": "image/png", "Content-Length": "3"}
    async with client.session.post(client.url + "/v1/predict/digits", data=slowly(), headers=sent) as response:
        assert response.status == 200
    own = (await spans_of(received, 3))["POST /v1/predict/{model}"]
    assert own.end_time_unix_nano - own.start_time_unix_nano > 45e6


async def dropped(client: Client) -> float:
    text = (await client.ask("GET", "/metrics"))[1].decode()
    return float(text.partition("\nfoothill_spans_dropped_total ")[2].partition("\n")[0])


async def test_a_collector_that_fails_costs_spans_and_nothing_else(
    router: Route, edge: Server, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await router([static("edge-fra", edge.url)], [], **traced(received))
    received.status = 400
    for _ in range(3):
        assert (await client.predict())[0].status == 200
        await asyncio.sleep(0.1)
    for _ in range(200):
        if await dropped(client) == 9:
            break
        await asyncio.sleep(0.02)
    assert caplog.text.count("takes no spans") == 1
    received.status = 200
    await client.predict()
    await spans_of(received, 3)
    await until(lambda: caplog.text.count("takes spans again") == 1)
    assert await dropped(client) == 9


async def test_spans_that_do_not_fit_are_counted(
    router: Route, edge: Server, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "MOST_WAITING", 64)
    client = await router([static("edge-fra", edge.url)], [], **traced(received))
    received.hold.clear()
    for _ in range(30):
        assert (await client.predict())[0].status == 200
    assert await dropped(client) == 3 * 30 - 64
    received.hold.set()
    await spans_of(received, 64)


async def test_one_that_is_away_does_not_keep_the_router_from_stopping(
    router: Route, edge: Server, received: Received, unused_tcp_port: int
) -> None:
    received.hold.clear()
    for endpoint in (received.url, f"http://127.0.0.1:{unused_tcp_port}"):
        made = port.Collector(TracingConfig(endpoint=endpoint), name="router")
        made.begin_trace(TRACE)
        made.tracer.start_span("one").end()
        await asyncio.sleep(0.1)
        began_s = time.monotonic()
        await made.close()
        assert time.monotonic() - began_s < port.CLOSE_S + 1.0


async def test_headers_come_from_a_file(router: Route, edge: Server, received: Received, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer s3cret\n\nX-Scope: a:b\n")
    client = await router([static("edge-fra", edge.url)], [], **traced(received, headers_file=str(file)))
    await client.predict()
    await spans_of(received, 3)
    sent = {name.lower(): value for name, value in received.headers[0].items()}
    assert (sent["authorization"], sent["x-scope"]) == ("Bearer s3cret", "a:b")
    for text in ("no header", ": nobody's"):
        file.write_text(text)
        with pytest.raises(SettingsError, match="one header a line"):
            await router([], [], **traced(received, headers_file=str(file)))
    with pytest.raises(SettingsError, match="cannot be read"):
        await router([], [], **traced(received, headers_file=str(tmp_path / "absent")))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("https://c/", "https://c/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_has_the_protocols(endpoint: str, url: str) -> None:
    assert endpoint_url(endpoint) == url


@pytest.mark.integration
def test_the_library_is_imported_only_where_a_collector_is_configured_and_missed_in_plain_words() -> None:
    """In processes of their own: this one has it already."""
    alone = "import sys, router.__main__; assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", alone], check=True, timeout=60)
    absent = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from router.seeing.collector import Collector, TracingConfig\n"
        "try: Collector(TracingConfig(endpoint='http://c:4318'), name='r')\n"
        "except Exception as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", absent], check=True, timeout=60, capture_output=True, text=True)
    assert "pip install 'foothill[otel]'" in told.stdout
