"""Proxies: the router's proxied path beside nginx, HAProxy, Envoy, Caddy, sglang-router and a bare proxy of aiohttp's.

`make bench-proxies` makes the environments of those that are Python packages, then runs `python -m benchmarks proxies`.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from benchmarks.bundles import Body
from benchmarks.canned_nodes import prediction_of
from benchmarks.load import LoadError, Target, drive, post
from benchmarks.machine import cpu_s
from benchmarks.proxy_setups import NGINX, PROXIES, Proxy, Site, ask_predict
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
from benchmarks.tree import Tree
from contracts.predictions import Classification
from runtime.links.process.ports import free_ports

NAME = "proxies"
CONCURRENCIES = (1, 32)
SIZES: Mapping[str, int] = {"1 KB": 1_000, "100 KB": 100_000, "600 KB": 600_000}
DIRECT = "direct"

NOTES = (
    "POST, closed loop. A proxy has one core, and in its turn nothing else is on it: the others are paused. Eight "
    "canned nodes, in one process, and the client share the other core. `direct` asks a node itself.",
    "`cpu us`: CPU time a request of all of the proxy's processes (in `direct` rows: of the nodes); `of nginx`: "
    "requests per CPU second over nginx's in the same round; `added p50 us`: median latency less that of `direct` in "
    "the same round, `p50 over nginx us` less that of nginx; `p99 of nginx`: the ratio of the 99th percentiles. "
    "Medians of the rounds, lowest and highest in brackets; `p50 ms`, `p99 ms` over the requests of all rounds.",
    "`proxy busy`: the share of its core that the proxy took. One that often waits is woken for fewer requests at a "
    "time, which makes each dearer. `client busy`: the same of the other core, client and nodes together.",
    "All balance over the eight nodes; the bare proxy knows one. nginx buffers requests whole, in memory. "
    "sglang-router knows its own protocols only and is asked at `/generate`, in JSON; all others for a prediction.",
)
_NODES = 8
_TIMEOUT_S = 30.0


class ProxyError(Exception):
    """A proxy that does not answer, or not what the nodes answer: its speed would say nothing."""


class ProxyRow(msgspec.Struct, frozen=True):
    """`note` says why where a proxy was not run."""

    body: str
    proxy: str
    concurrency: int | None = None
    requests_per_s: float | None = None
    cpu_us: float | None = None
    of_nginx: Ratio | None = None
    added_p50_us: Ratio | None = None
    p50_over_nginx_us: Ratio | None = None
    p99_of_nginx: Ratio | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    proxy_busy: float | None = None
    client_busy: float | None = None
    note: str = ""


class _Question(NamedTuple):
    """One proxy, asked by so many at once."""

    proxy: str
    concurrency: int


class _Running(NamedTuple):
    proxy: Proxy
    url: str
    tree: Tree


async def measure(stage: Stage, profile: Profile) -> Report:
    for proxy in PROXIES:
        if proxy.missing:
            print(f"{proxy.name}: {proxy.missing}", file=sys.stderr)
    return await compare(stage, profile, SIZES, PROXIES)


async def compare(stage: Stage, profile: Profile, sizes: Mapping[str, int], proxies: Sequence[Proxy]) -> Report:
    """Each body by itself: the nodes and all proxies take turns. Those of `sizes` are in bytes.

    Raises ProxyError for a proxy that answers wrongly, ProcessError for one that does not start.
    """
    nodes = stage.start("nodes", "benchmarks.canned_nodes", str(_NODES), core=stage.cores.client)
    rows: list[ProxyRow] = []
    rounds: list[Rounds[_Question]] = []
    with ExitStack() as closing:
        present = [proxy for proxy in proxies if not proxy.missing]
        running = [closing.enter_context(_running(stage, proxy, nodes)) for proxy in present]
        for one in running:
            for size in sizes.values():
                _check(one, size)
            one.tree.pause()
        for title, size in sizes.items():
            cases = _cases(running, nodes, size)
            rounds.append(await interleaved(cases, profile, stage.pids))
            rows += [_row(title, question, rounds[-1].runs) for question in cases]
    rows += [ProxyRow("", proxy.name, note=proxy.missing) for proxy in proxies if proxy.missing]
    return report(NAME, rows, NOTES, rounds)


@contextmanager
def _running(stage: Stage, proxy: Proxy, nodes: Server) -> Iterator[_Running]:
    """Ready when the first request is answered."""
    name = proxy.name.lower().replace(",", "").replace(" ", "-")
    site = Site(stage.work / name, free_ports(2), nodes.url.split())
    site.folder.mkdir()
    small = proxy.ask(min(SIZES.values()))

    def answers() -> bool:
        try:
            return _answer(site.url, small).status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    command = proxy.command(proxy.program.path, site)
    with stage.program(name, command, answers, core=stage.cores.server) as tree:
        yield _Running(proxy, site.url, tree)


class _Answer(NamedTuple):
    status: int
    body: bytes


def _answer(url: str, asked: Body) -> _Answer:
    """Raises OSError or http.client.HTTPException where nobody, or nobody sensible, answers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", asked.path, asked.content, asked.headers)
        response = connection.getresponse()
        return _Answer(response.status, response.read())
    finally:
        connection.close()


def _check(running: _Running, size: int) -> None:
    """A node's prediction must come through; only its reason is the proxy's to settle. Raises ProxyError."""
    name = running.proxy.name
    try:
        status, body = _answer(running.url, running.proxy.ask(size))
    except (OSError, http.client.HTTPException) as error:
        raise ProxyError(f"{name} does not answer {size} bytes: {error!r}. See its log.") from error
    if status != http.client.OK:
        raise ProxyError(f"{name} answers {size} bytes with {status}: {body[:2000].decode(errors='replace')}")
    try:
        told = msgspec.json.decode(body, type=Classification)
    except msgspec.DecodeError as error:
        raise ProxyError(f"{name} answers no prediction, but {body[:2000]!r}. Mend its setup.") from error
    if told != msgspec.structs.replace(prediction_of(told.node), reason=told.reason):
        raise ProxyError(f"{name} answers something else than its nodes: {told}. Mend its setup.")


def _cases(running: Sequence[_Running], nodes: Server, size: int) -> dict[_Question, Case]:
    cases: dict[_Question, Case] = {}
    straight = ask_predict(size)
    for concurrency in CONCURRENCIES:
        target = post(nodes.url.split()[0], straight.path, straight.headers, straight.content)
        cases[_Question(DIRECT, concurrency)] = _directly(nodes, target, concurrency)
    for one in running:
        asked = one.proxy.ask(size)
        target = post(one.url, asked.path, asked.headers, asked.content)
        for concurrency in CONCURRENCIES:
            cases[_Question(one.proxy.name, concurrency)] = _through(one, nodes, target, concurrency)
    return cases


def _directly(nodes: Server, target: Target, concurrency: int) -> Case:
    async def case(seconds: float) -> Run:
        before_s = cpu_s(nodes.pid)
        load = await drive(target, concurrency=concurrency, seconds=seconds)
        nodes_s = cpu_s(nodes.pid) - before_s
        return Run(load.wall_s, nodes_s, load.client_cpu_s + nodes_s, load.latencies_ms)

    return case


def _through(running: _Running, nodes: Server, target: Target, concurrency: int) -> Case:
    tree = running.tree

    async def case(seconds: float) -> Run:
        tree.resume()
        try:
            before_s, nodes_before_s = tree.cpu_s(), cpu_s(nodes.pid)
            load = await drive(target, concurrency=concurrency, seconds=seconds)
            nodes_s = cpu_s(nodes.pid) - nodes_before_s
            return Run(load.wall_s, tree.cpu_s() - before_s, load.client_cpu_s + nodes_s, load.latencies_ms)
        except LoadError as error:
            raise ProxyError(f"{running.proxy.name} failed under {concurrency} callers: {error}") from error
        finally:
            tree.pause()

    return case


def _row(title: str, question: _Question, runs: Mapping[_Question, Sequence[Run]]) -> ProxyRow:
    own, direct = runs[question], runs[_Question(DIRECT, question.concurrency)]
    nginx = runs.get(_Question(NGINX, question.concurrency))
    routed = question.proxy != DIRECT
    compared = nginx if routed and question.proxy != NGINX else None
    return ProxyRow(
        body=title,
        proxy=question.proxy,
        concurrency=question.concurrency,
        requests_per_s=middle(own, lambda run: run.rate),
        cpu_us=middle(own, lambda run: run.cpu_us),
        of_nginx=ratio(compared, own, lambda run: run.cpu_us) if compared else None,
        added_p50_us=_added_us(own, direct) if routed else None,
        p50_over_nginx_us=_added_us(own, compared) if compared else None,
        p99_of_nginx=ratio(own, compared, _p99_ms) if compared else None,
        p50_ms=percentile_ms(own, 50),
        p99_ms=percentile_ms(own, 99),
        proxy_busy=middle(own, lambda run: run.server_cpu_s / run.wall_s) if routed else None,
        client_busy=client_busy(own),
    )


def _added_us(own: Sequence[Run], other: Sequence[Run]) -> Ratio:
    """Median latency less the other's, round by round."""
    return spread([(one.p50_ms - beside.p50_ms) * 1000.0 for one, beside in zip(own, other, strict=True)])


def _p99_ms(run: Run) -> float:
    return percentile_ms([run], 99)
