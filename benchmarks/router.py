"""The router: what its proxied path and its leases add to asking the node directly. Node and client share a core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks import bundles
from benchmarks.bundles import Body, Served
from benchmarks.load import post
from benchmarks.report import Report, report
from benchmarks.rounds import (
    Case,
    Profile,
    Ratio,
    Rounds,
    Run,
    client_busy,
    interleaved,
    middle,
    percentile_ms,
    ratio,
    spread,
)
from benchmarks.stage import Server, Stage
from contracts.leases import RouteRequest
from foothill.demo.places import GeoDatabaseError, database_path

NAME = "router"
CONCURRENCIES = (1, 16)
DIRECT, PROXIED, LEASE, BARE = "direct", "proxied", "lease", "bare aiohttp proxy"
SMALL, LARGE = "digits, 4 KB", "MobileNetV2 size, 602 KB"

NOTES = (
    "The proxy has one core; the node and the client share the other. `direct` asks the node itself, as a client does "
    "under a lease; `lease` is `POST /v1/route` alone, which a client pays once per time to live (30 s).",
    "`added p50 us`: median latency less that of `direct` in the same round. `cpu us`: CPU time a request of the "
    "process on the proxy's core (in `direct` rows: of the node). `per cpu s`: requests per CPU second of the proxy; "
    "`of bare`: the same over a proxy of aiohttp's server and client that only copies. Medians of the rounds, lowest "
    "and highest in brackets.",
)
_HOP_KEY = "11" * 32
_CALLER = "203.0.113.7"


class RouterRow(msgspec.Struct, frozen=True):
    body: str
    case: str
    concurrency: int
    added_p50_us: Ratio | None
    p50_of_direct: Ratio | None
    of_bare: Ratio | None
    p50_ms: float
    p99_ms: float
    cpu_us: float
    per_cpu_s: float
    client_busy: float


class _Question(NamedTuple):
    """One case of one body."""

    case: str
    concurrency: int


async def measure(stage: Stage, profile: Profile) -> Report:
    """Each body by itself: all cases take turns."""
    models = {SMALL: bundles.digits(stage.digits), LARGE: bundles.mobilenet(stage.work)}
    node = start_node(stage, [*models.values()], core=stage.cores.client)
    router = start_router(stage, node, [*models.values()])
    bare = stage.start("bare", "benchmarks.bare_proxy", node.url, core=stage.cores.server)
    rows: list[RouterRow] = []
    rounds: list[Rounds[_Question]] = []
    for size, model in models.items():
        asked = {DIRECT: (node, model.infer), PROXIED: (router, model.infer), BARE: (bare, model.infer)}
        if size == SMALL:
            asked[LEASE] = (router, _lease(model))
        cases = {
            _Question(case, concurrency): _asking(stage, *asked[case], concurrency)
            for case in asked
            for concurrency in CONCURRENCIES
        }
        rounds.append(await interleaved(cases, profile, stage.pids))
        rows += [_row(size, question, rounds[-1].runs) for question in cases]
    return report(NAME, rows, NOTES, rounds)


def start_node(stage: Stage, served: Sequence[Served], *, core: int) -> Server:
    directories = [str(model.packed.directory) for model in served]
    return stage.start_node("edge", {"tier": "edge", "bundles": directories, "hop_key": _HOP_KEY}, core)


def start_router(stage: Stage, node: Server, served: Sequence[Served]) -> Server:
    """A router before `node` alone, on the server's core."""
    return stage.start_router(_config(stage, node, served), core=stage.cores.server)


def _config(stage: Stage, node: Server, served: Sequence[Served]) -> dict[str, Any]:
    """A router with one static node: without broker and cloud, but with a GeoIP database where there is one."""
    key = stage.work / "hop.key"
    key.write_text(_HOP_KEY)
    models = [model.packed.manifest.model for model in served]
    static = {"name": "edge", "url": node.url, "region": "eu-west", "lat": 53.35, "lon": -6.26, "models": models}
    config = {
        "broker_url": "",
        "cloud_urls": [],
        "hop_key_file": str(key),
        "nodes": [static],
        "place": {"lat": 50.11, "lon": 8.68},
        "trusted_proxies": ["127.0.0.1/32"],
    }
    try:
        return {**config, "geoip_database": str(database_path())}
    except GeoDatabaseError:
        return config


def _lease(model: Served) -> Body:
    """A caller behind a proxy that the router trusts, so that its place is looked up."""
    sent = {"Content-Type": "application/json", "X-Forwarded-For": _CALLER}
    return Body("/v1/route", sent, msgspec.json.encode(RouteRequest(model.packed.manifest.model)))


def _asking(stage: Stage, server: Server, body: Body, concurrency: int) -> Case:
    return stage.asking(server, post(server.url, body.path, body.headers, body.content), concurrency)


def _row(size: str, question: _Question, runs: Mapping[_Question, Sequence[Run]]) -> RouterRow:
    own, direct = runs[question], runs[_Question(DIRECT, question.concurrency)]
    bare = runs[_Question(BARE, question.concurrency)]
    added = [(one.p50_ms - other.p50_ms) * 1000.0 for one, other in zip(own, direct, strict=True)]
    routed = question.case != DIRECT
    return RouterRow(
        body=size,
        case=question.case,
        concurrency=question.concurrency,
        added_p50_us=spread(added) if routed else None,
        p50_of_direct=ratio(own, direct, lambda run: run.p50_ms) if routed else None,
        of_bare=ratio(bare, own, lambda run: run.cpu_us) if routed else None,
        p50_ms=percentile_ms(own, 50),
        p99_ms=percentile_ms(own, 99),
        cpu_us=middle(own, lambda run: run.cpu_us),
        per_cpu_s=middle(own, lambda run: 1e6 / run.cpu_us),
        client_busy=client_busy(own),
    )
