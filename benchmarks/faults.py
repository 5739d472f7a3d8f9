"""The router before upstreams that fail, and before twice the load that they can take; and what one pick costs."""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from benchmarks.arrivals import Came, arrive, poisson
from benchmarks.fault_story import FAULTS, Fault, Times, evenly, tell
from benchmarks.faulty_nodes import HOP_KEY, MODEL, FaultyNode
from benchmarks.load import Target, post
from benchmarks.machine import Watch
from benchmarks.report import Report, report
from benchmarks.rounds import Profile, Rounds
from benchmarks.stage import Server, Stage
from contracts import headers
from contracts.deadlines import Deadline
from contracts.places import Place
from router.config import StaticNode
from router.fields import Fields
from router.node import Node
from router.nodes import Nodes
from runtime.links.http.upstream import Request, Upstreams

NAME = "faults"
CLOUD_GONE, TWICE = "cloud gone", "2x overload"
PICKS = {"one pick of 64 nodes": 64, "one pick of 10,000 nodes": 10_000}
NOTES = (
    "Eight nodes and the load share a core, the router has the other. A node runs its requests one after the other, "
    "10 ms each; the nearest is the one that falls sick, the others are 20 ms further away. Open loop, 300 requests a "
    "second, as long before and after the fault as during it, with a deadline of 1 s, half of which one node may take.",
    "`failed`: answers that were no success. Where one node is sick, others could have given all of them. `late`: "
    "answers behind the deadline. `amplification`: requests that came to nodes, or that the router sent, over those of "
    "callers. `recovery s`: how long after it was mended the sick one answered again.",
    f"`{CLOUD_GONE}`: the cloud is killed, and every edge answer is doubted; the amplification is that of the edge.",
    f"`{TWICE}`: twice what the nodes can do, which refuse what would be late; `goodput of capacity` counts answers in "
    "time, `failed` what was refused, `recovery s` ends with twenty answers in a row that take no longer than before.",
    "`one pick`: `Field.pick` and what reserves it, in this process, with requests under way and loads that fade.",
)
RATE = 300.0
DEADLINE_MS = 1000.0
_NODES, _SERVICE_MS, _FAR_MS = 8, 10.0, 20.0
_NEAREST = "edge-0"
_HERE, _NEXT = Place(53.35, -6.26), Place(50.11, 8.68)
_DOUBTED = 0.5
_PART, _LEAST_S = 4.0 / 3.0, 0.3
_OVERLOAD, _CALM = 6.0, 0.4
_IN_A_ROW, _USUAL = 20, 2.0
_PICKS, _UNDER_WAY = 2_000, 100
_OK = 200
_PATIENCE_MS = 10_000.0
_SECOND = re.compile(rb'foothill_router_(?:retries|hedges)_total\{outcome="(?:tried|won|lost)"\} ([0-9.e+]+)')


class FaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """What does not apply to a case is left out."""

    case: str
    requests: int
    failed: int | None = None
    late: int | None = None
    amplification: float | None = None
    goodput_of_capacity: float | None = None
    p99_before_ms: float | None = None
    p99_during_ms: float | None = None
    p99_after_ms: float | None = None
    recovery_s: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None


async def measure(stage: Stage, profile: Profile) -> Report:
    """A fault lasts 10 s of the full profile, the overload 60 s."""
    part_s = max(_LEAST_S, _PART * profile.rounds * profile.seconds)
    watch, rounds = Watch(stage.pids), Rounds[str]([])
    rows = [*await _faults(stage, Times(part_s, part_s, part_s)), await _overload(stage, part_s)]
    rows += [_picking(case, count, max(100, round(_PICKS * part_s))) for case, count in PICKS.items()]
    rounds.keep({}, watch.read())
    return report(NAME, rows, NOTES, [rounds])


async def _faults(stage: Stage, times: Times) -> list[FaultRow]:
    """One after the other, before the same router."""
    async with _nodes() as nodes, _nodes(["cloud"], tier="cloud") as (cloud,):
        router = _router(stage, "router", nodes, [cloud.url])
        await arrive(_asking(router), evenly(RATE, times.before_s))
        rows = [await _row(name, router, nodes, nodes[0], make(nodes[0]), times) for name, make in FAULTS.items()]
        for node in nodes:
            node.confidence = _DOUBTED
        rows.append(await _row(CLOUD_GONE, router, nodes, cloud, FAULTS["killed"](cloud), times))
        return rows


async def _row(
    case: str, router: Server, nodes: Sequence[FaultyNode], sick: FaultyNode, fault: Fault, times: Times
) -> FaultRow:
    before = await _second_tries(router)
    story = await tell(_asking(router), nodes, sick, fault, RATE, times)
    tries = story.requests + (await _second_tries(router) - before if sick in nodes else 0.0)
    parts = (story.before, story.during, story.after)
    return FaultRow(
        case=case,
        requests=story.requests,
        failed=story.failed,
        late=sum(_late(came) for came in parts),
        amplification=max(story.asked, tries) / story.requests,
        p99_before_ms=_p99_ms(story.before),
        p99_during_ms=_p99_ms(story.during),
        p99_after_ms=_p99_ms(story.after),
        recovery_s=story.back_after_s,
    )


async def _overload(stage: Stage, part_s: float) -> FaultRow:
    """Without a cloud, which would take what the nodes cannot."""
    rng = np.random.default_rng(0)
    capacity = _NODES * 1000.0 / _SERVICE_MS
    seconds = _OVERLOAD * part_s
    async with _nodes() as nodes:
        for node in nodes:
            node.sheds = True
        target = _asking(_router(stage, "overloaded", nodes, []))
        await arrive(target, evenly(RATE, part_s))
        before = await arrive(target, poisson(_CALM * capacity, part_s, rng))
        during = await arrive(target, poisson(2.0 * capacity, seconds, rng))
        after = await arrive(target, poisson(_CALM * capacity, part_s, rng))
        there_s = during.at_s + during.latency_ms / 1000.0
        good = (during.status == _OK) & (during.latency_ms - during.unsent_ms <= DEADLINE_MS) & (there_s <= seconds)
        return FaultRow(
            case=TWICE,
            requests=len(during.status),
            failed=int((during.status != _OK).sum()),
            late=_late(during),
            goodput_of_capacity=float(good.sum()) / seconds / capacity,
            p99_before_ms=_p99_ms(before),
            p99_during_ms=_p99_ms(during),
            p99_after_ms=_p99_ms(after),
            recovery_s=_usual_after_s(after, _USUAL * float(np.median(before.latency_ms))),
        )


def _picking(case: str, count: int, picks: int) -> FaultRow:
    """Nodes all over the place, each answering what it was asked a hundred picks ago."""
    rng = random.Random(0)
    places = [Place(rng.uniform(-60.0, 70.0), rng.uniform(-180.0, 180.0)) for _ in range(count)]
    told = [_static(f"n{at}", "http://127.0.0.1:1", place) for at, place in enumerate(places)]
    field = Fields(Nodes(_HERE, told), rng).of(MODEL, ())
    under_way: deque[Node] = deque()
    took_us = []
    for _ in range(picks):
        begun_s = time.perf_counter()
        picked = field.pick(begun_s, DEADLINE_MS)
        assert picked is not None
        picked.node.reserve(begun_s)
        took_us.append((time.perf_counter() - begun_s) * 1e6)
        under_way.append(picked.node)
        if len(under_way) > _UNDER_WAY:
            node = under_way.popleft()
            node.learn(20.0, 5.0, "in_flight=3;queue_ms=1;service_ms=5", begun_s, 1000, picked.expected_ms)
            node.release("succeeded", begun_s)
    return FaultRow(
        case=case,
        requests=picks,
        p50_us=float(np.percentile(took_us, 50)),
        p99_us=float(np.percentile(took_us, 99)),
    )


@asynccontextmanager
async def _nodes(names: Sequence[str] = (), tier: str = "edge") -> AsyncIterator[list[FaultyNode]]:
    """Those with these names, or the usual ones, of which the first is the nearest."""
    named = names or [f"edge-{at}" for at in range(_NODES)]
    service_ms = _SERVICE_MS if tier == "edge" else 1.0
    made = [
        FaultyNode(name, service_ms=service_ms, far_ms=0.0 if name == _NEAREST else _FAR_MS, tier=tier)
        for name in named
    ]
    for node in made:
        await node.start()
    yield made
    for node in made:
        node.close()


def _router(stage: Stage, name: str, nodes: Sequence[FaultyNode], cloud_urls: list[str]) -> Server:
    key = stage.work / "hop.key"
    key.write_text(HOP_KEY.hex())
    statics = [_static(node.name, node.url, _HERE if node.name == _NEAREST else _NEXT) for node in nodes]
    config: dict[str, Any] = {
        "broker_url": "",
        "cloud_urls": cloud_urls,
        "hop_key_file": str(key),
        "nodes": msgspec.to_builtins(statics),
        "place": msgspec.to_builtins(_HERE),
    }
    return stage.start_router(config, name=name, core=stage.cores.server)


def _static(name: str, url: str, place: Place) -> StaticNode:
    return StaticNode(name=name, url=url, region="eu-west", lat=place.lat, lon=place.lon, models=(MODEL,))


def _asking(router: Server) -> Target:
    sent = {"Content-Type": "image/png", headers.DEADLINE_MS: f"{DEADLINE_MS:.0f}"}
    return post(router.url, f"/v1/predict/{MODEL}", sent, b"png")


async def _second_tries(router: Server) -> float:
    """Retries and hedges that the router has sent so far."""
    upstreams = Upstreams()
    try:
        deadline = Deadline.after(_PATIENCE_MS, now_s=time.monotonic())
        told = await upstreams.send(router.url, Request("GET", "/metrics", {}), deadline=deadline)
    finally:
        await upstreams.close()
    return sum(map(float, _SECOND.findall(told.body)))


def _late(came: Came) -> int:
    return int(((came.status == _OK) & (came.latency_ms - came.unsent_ms > DEADLINE_MS)).sum())


def _p99_ms(came: Came) -> float:
    answered = came.latency_ms[came.status == _OK]
    return float(np.percentile(answered if answered.size else came.latency_ms, 99))


def _usual_after_s(came: Came, usual_ms: float) -> float | None:
    """None where it never was again."""
    unusual = (came.status != _OK) | (came.latency_ms > usual_ms)
    found = (at for at in range(len(unusual)) if not unusual[at : at + _IN_A_ROW].any())
    at = next(found, None)
    return None if at is None else float(came.at_s[at]) if at else 0.0
