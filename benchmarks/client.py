"""The client: CPU time a call of `foothill.Client` and `AsyncClient`, beside aiohttp and httpx without them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import aiohttp
import httpx
import msgspec
import numpy as np

from benchmarks import bundles, router
from benchmarks.report import Report, report
from benchmarks.rounds import Case, Profile, Ratio, Run, interleaved, middle, percentile_ms, ratio
from benchmarks.stage import Server, Stage
from foothill import AsyncClient, Client

NAME = "client"
BARE = "aiohttp, bare"
HTTPX, HTTPX_ASYNC = "httpx.Client, bare", "httpx.AsyncClient, bare"

NOTES = (
    "One call after another from one process: a PNG to `/v1/predict/digits`, the answer decoded. `cpu us`: CPU time a "
    "call of the calling process; `of aiohttp` and `of httpx` (sync beside sync, async beside async): ratios of it in "
    "the same round. The bare clients send one header and decode JSON without checking it.",
    "`leased`: the client takes a lease from the router and calls the node; `direct`: it is given the node's URL. In "
    "both the answer is typed, has a deadline, and would have been retried.",
)

Call = Callable[[], Awaitable[object]]


class ClientRow(msgspec.Struct, frozen=True):
    case: str
    cpu_us: float
    of_aiohttp: Ratio
    of_httpx: Ratio | None
    p50_ms: float
    p99_ms: float


class _Way(NamedTuple):
    """One way to make the call, and the bare client that it stands on."""

    call: Call
    httpx: str | None = None


async def measure(stage: Stage, profile: Profile) -> Report:
    model = bundles.digits(stage.digits)
    node = router.start_node(stage, [model], core=stage.cores.server)
    routing = router.start_router(stage, node, [model])
    async with AsyncExitStack() as closing:
        ways = await _ways(closing, node, routing)
        cases = {name: _calling(way.call) for name, way in ways.items()}
        rounds = await interleaved(cases, profile, stage.pids)
    return report(NAME, [_row(name, way, rounds.runs) for name, way in ways.items()], NOTES, [rounds])


async def _ways(closing: AsyncExitStack, node: Server, routing: Server) -> dict[str, _Way]:
    png = bundles.digits_png()
    url, sent = node.url + png.path, png.headers
    bare = await closing.enter_async_context(aiohttp.ClientSession())
    plain = closing.enter_context(httpx.Client(trust_env=False))
    plain_async = await closing.enter_async_context(httpx.AsyncClient(trust_env=False))
    direct = closing.enter_context(Client(node.url, lease=False, trust_env=False))
    leased = closing.enter_context(Client(routing.url, trust_env=False))
    direct_async = await closing.enter_async_context(AsyncClient(node.url, lease=False, trust_env=False))
    leased_async = await closing.enter_async_context(AsyncClient(routing.url, trust_env=False))

    async def by_aiohttp() -> object:
        async with bare.post(url, data=png.content, headers=sent) as answer:
            return msgspec.json.decode(await answer.read())

    async def by_httpx() -> object:
        return msgspec.json.decode(plain.post(url, content=png.content, headers=sent).content)

    async def by_httpx_async() -> object:
        return msgspec.json.decode((await plain_async.post(url, content=png.content, headers=sent)).content)

    return {
        BARE: _Way(by_aiohttp),
        HTTPX: _Way(by_httpx),
        HTTPX_ASYNC: _Way(by_httpx_async),
        "foothill.Client, direct": _Way(_blocking(direct, png.content), HTTPX),
        "foothill.Client, leased": _Way(_blocking(leased, png.content), HTTPX),
        "foothill.AsyncClient, direct": _Way(_awaiting(direct_async, png.content), HTTPX_ASYNC),
        "foothill.AsyncClient, leased": _Way(_awaiting(leased_async, png.content), HTTPX_ASYNC),
    }


def _blocking(client: Client, png: bytes) -> Call:
    async def call() -> object:
        return client.predict("digits", png)

    return call


def _awaiting(client: AsyncClient, png: bytes) -> Call:
    async def call() -> object:
        return await client.predict("digits", png)

    return call


def _calling(call: Call) -> Case:
    async def case(seconds: float) -> Run:
        latencies_ms: list[float] = []
        started_s = now_s = time.perf_counter()
        started_cpu_s = time.process_time()
        while now_s < started_s + seconds:
            await call()
            before_s, now_s = now_s, time.perf_counter()
            latencies_ms.append((now_s - before_s) * 1000.0)
        return Run(now_s - started_s, time.process_time() - started_cpu_s, 0.0, np.array(latencies_ms))

    return case


def _row(name: str, way: _Way, runs: Mapping[str, Sequence[Run]]) -> ClientRow:
    own = runs[name]
    return ClientRow(
        case=name,
        cpu_us=middle(own, lambda run: run.cpu_us),
        of_aiohttp=ratio(own, runs[BARE], lambda run: run.cpu_us),
        of_httpx=ratio(own, runs[way.httpx], lambda run: run.cpu_us) if way.httpx else None,
        p50_ms=percentile_ms(own, 50),
        p99_ms=percentile_ms(own, 99),
    )
