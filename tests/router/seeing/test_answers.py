"""What is on every answer of a router, errors too: id, time, trace, and the reason of whatever is no plain fact."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from contracts import headers
from contracts.timing import parse_server_timing
from contracts.traces import parse_traceparent, trace_id_of
from tests.router.rig import Server, static
from tests.router.test_app import Client, Route, cloud, edge, router
from tests.router.test_shortcut import short

__all__ = ["cloud", "edge", "router", "short"]

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
IMAGE = {"Content-Type": "image/png"}
ASKED = [
    ("POST", "/v1/predict/digits", IMAGE, b"png", 200, "no-confidence"),
    ("POST", "/v1/predict/digits?a=b", IMAGE, b"png", 200, "no-confidence"),
    ("POST", "/v2/models/digits/infer", {}, b"{}", 200, "no-confidence"),
    ("POST", "/v2/models/digits/versions/1/infer", {}, b"{}", 200, "no-confidence"),
    ("POST", "/v1/predict/digits", {"Prefer": "foothill-redirect"}, b"png", 307, "redirected"),
    ("POST", "/v1/predict/none", IMAGE, b"png", 404, "model_not_found"),
    ("POST", "/v1/predict/digits", {headers.DEADLINE_MS: "soon"}, b"png", 400, "bad_header"),
    ("POST", "/v1/predict/digits", IMAGE, b"x" * 2000, 413, "body_too_large"),
    ("POST", "/v2/models/digits/infer", {headers.RESIDENCY: "mars"}, b"{}", 403, "residency_denied"),
    ("POST", "/v1/route", {}, b"{}", 400, "bad_request"),
    ("POST", "/v1/route", {}, b'{"model": "digits"}', 200, None),
    ("GET", "/v1/explain", {}, None, 400, "bad_request"),
    ("GET", "/v1/results/r1", {}, None, 404, "not_found"),
    ("GET", "/v1/predict/digits", {}, None, 405, "method_not_allowed"),
    ("GET", "/nowhere", {}, None, 404, "not_found"),
    ("GET", "/healthz", {}, None, 200, None),
    ("POST", "/v2/repository/models/digits/load", {}, b"{}", 403, "forbidden"),
]


@pytest.mark.parametrize(("method", "path", "sent", "body", "status", "reason"), ASKED)
async def test_every_answer_tells_its_id_time_trace_and_reason(
    router: Route,
    edge: Server,
    method: str,
    path: str,
    sent: dict[str, str],
    body: bytes | None,
    status: int,
    reason: str | None,
) -> None:
    client = await router([static("edge-fra", edge.url)], [], max_body_bytes=1024)
    for own in ({}, {headers.REQUEST_ID: "mine-1"}, {headers.TRACEPARENT: SENT}, {headers.TRACEPARENT: "none-of-w3c"}):
        response, _ = await client.ask(method, path, body=body, sent={**sent, **own})
        told = response.headers
        assert response.status == status
        assert told.get(headers.REASON) == reason
        assert "total" in parse_server_timing(told[headers.SERVER_TIMING])
        request_id = told[headers.REQUEST_ID]
        assert request_id == own.get(headers.REQUEST_ID, request_id)
        span = parse_traceparent(told[headers.TRACEPARENT])
        assert span is not None
        if own.get(headers.TRACEPARENT) == SENT:
            assert told.getall(headers.TRACEPARENT) == [SENT]
        else:
            assert (span.trace_id, span.sampled) == (trace_id_of(request_id), False)


@pytest.mark.parametrize("own", [{}, {headers.REQUEST_ID: "mine-1"}, {headers.TRACEPARENT: SENT}])
async def test_the_short_way_tells_the_trace_too_whatever_nodes_do(
    router: Route, edge: Server, short: list[bool], own: dict[str, str]
) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    for status in (200, 200, 400, 200, 503):
        edge.status = status
        response, _ = await client.predict(own)
        expected = own.get(headers.TRACEPARENT) or f"00-{trace_id_of(response.headers[headers.REQUEST_ID])}-"
        assert response.headers.getall(headers.TRACEPARENT)[0].startswith(expected)
        assert len(response.headers.getall(headers.TRACEPARENT)) == 1
        assert response.headers[headers.REASON] == ("no-confidence" if status == 200 else "refused")
        assert edge.seen[-1].headers.get(headers.TRACEPARENT) == own.get(headers.TRACEPARENT)
    assert short[:4] == [False, True, True, True]


async def test_refusals_of_who_calls_tell_all_that_too(router: Route, edge: Server, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "acme"\nsha256 = "{hashlib.sha256(b"s3cret").hexdigest()}"\n')
    client = await router([static("edge-fra", edge.url)], [], tokens_file=str(tokens))
    for method, path in (("POST", "/v1/predict/digits"), ("GET", "/v1/explain?model=digits")):
        response, _ = await client.ask(method, path, body=b"")
        assert (response.status, response.headers[headers.REASON]) == (401, "unauthorized")
        assert {headers.TRACEPARENT, headers.SERVER_TIMING, headers.REQUEST_ID} <= response.headers.keys()


async def phases(client: Client) -> set[tuple[str, str]]:
    """Tier and region of all that was counted."""
    text = (await client.ask("GET", "/metrics"))[1].decode()
    lines = [line for line in text.splitlines() if line.startswith("foothill_phase_seconds_count{")]
    labels = [
        dict(part.split("=") for part in line[line.index("{") + 1 : line.index("}")].split(",")) for line in lines
    ]
    return {(told["tier"].strip('"'), told["region"].strip('"')) for told in labels}


async def test_times_are_counted_by_the_region_that_answered(
    router: Route, edge: Server, cloud: Server, short: list[bool]
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url], cloud_region="eastus")
    for _ in range(2):
        await client.predict()
    assert short == [False, True]
    assert await phases(client) == {("edge", "eu-central")}
    edge.status = 400
    await client.predict()
    assert await phases(client) == {("edge", "eu-central")}
    edge.status = 503
    await client.predict()
    assert await phases(client) == {("edge", "eu-central"), ("cloud", "eastus")}
    await client.predict({headers.DEADLINE_MS: "soon"})
    assert await phases(client) == {("edge", "eu-central"), ("cloud", "eastus"), ("none", "")}
