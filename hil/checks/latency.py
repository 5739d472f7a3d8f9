"""Latency alone, and latency over load: one request after another, then more and more at once, then at fixed rates."""

from __future__ import annotations

import random
from collections.abc import Sequence

from contracts.acceptance import Check, Curve, Point
from hil.bench import Bench
from hil.checks.guarded import of_each
from hil.load import Shoot, Tally, closed_loop, counting, lasting, open_loop
from hil.node import Subject

WARM_UP = 10
_SATURATED = 0.95


async def latency(bench: Bench) -> list[Check]:
    return await of_each(bench, "latency", _latency)


async def _latency(bench: Bench, subject: Subject) -> Check:
    shoot = await bench.shoot_at(subject)
    bench.say(f"{subject.name}: {bench.plan.requests} requests, one after another")
    await closed_loop(shoot, concurrency=1, until=counting(WARM_UP))
    tally = await closed_loop(shoot, concurrency=1, until=counting(bench.plan.requests))
    point = tally.point("closed", 1, 0.0)
    limit_ms = bench.board.p99_ms(subject.name)
    figures = {
        "p50_ms": point.p50_ms,
        "p95_ms": point.p95_ms,
        "p99_ms": point.p99_ms,
        "limit_p99_ms": limit_ms,
        **{f"{phase}_ms": ms for phase, ms in point.phases_ms.items() if phase in ("queue", "decode", "infer")},
    }
    fault = _fault(tally)
    measured = (
        f"p50 {point.p50_ms:.2f}, p95 {point.p95_ms:.2f}, p99 {point.p99_ms:.2f} ms over {tally.answered} requests"
    )
    if not fault and point.p99_ms > limit_ms:
        fault = f"p99 is over its limit of {limit_ms:g} ms"
    told = f"{fault}; {measured}" if fault else f"{measured}, limit of p99 {limit_ms:g} ms"
    return Check("latency", "failed" if fault else "passed", told, subject.name, figures)


async def curve(bench: Bench) -> list[Check]:
    async with bench.sensing("curve"):
        return await of_each(bench, "curve", _curve)


async def _curve(bench: Bench, subject: Subject) -> Check:
    shoot = await bench.shoot_at(subject)
    tallies, points = await _sweep(bench, subject, shoot)
    found = curve_of(subject.name, points)
    if found.most_per_s > 0:
        await _open_loops(bench, subject, shoot, found.most_per_s, tallies, points)
    found = curve_of(subject.name, points)
    bench.curves.append(found)
    least = bench.board.min_throughput(subject.name)
    failed = [fault for fault in map(_failure, tallies) if fault]
    fault = failed[0] if failed else ""
    if not fault and found.most_per_s < least:
        fault = f"its limit is {least:g} a second"
    measured = f"{found.most_per_s:.1f} answers a second at most, reached with {found.saturated_at} at once"
    slow_client = max(point.client_share for point in points) > 0.9
    told = f"{measured}{'; the client itself took a whole core, the node may do more' if slow_client else ''}"
    figures = {"most_per_s": found.most_per_s, "saturated_at": float(found.saturated_at), "limit_per_s": least}
    return Check("curve", "failed" if fault else "passed", f"{fault}; {told}" if fault else told, subject.name, figures)


async def _sweep(bench: Bench, subject: Subject, shoot: Shoot) -> tuple[list[Tally], list[Point]]:
    tallies: list[Tally] = []
    points: list[Point] = []
    for level in bench.plan.levels():
        bench.say(f"{subject.name}: {level} requests at once for {bench.plan.step_s:g} s")
        tally = await closed_loop(shoot, concurrency=level, until=lasting(bench.plan.step_s))
        tallies.append(tally)
        points.append(tally.point("closed", level, 0.0))
        if tally.answered == 0:
            break
    return tallies, points


async def _open_loops(
    bench: Bench, subject: Subject, shoot: Shoot, most_per_s: float, tallies: list[Tally], points: list[Point]
) -> None:
    for share in bench.plan.open_shares:
        rate = share * most_per_s
        bench.say(f"{subject.name}: {rate:.1f} requests a second for {bench.plan.step_s:g} s")
        tally = await open_loop(shoot, rate=rate, seconds=bench.plan.step_s, rng=random.Random(bench.plan.seed))
        tallies.append(tally)
        points.append(tally.point("open", 0, rate))


def curve_of(model: str, points: Sequence[Point]) -> Curve:
    """Pure. Of a model that answered nothing the node is saturated at 0."""
    closed = [point for point in points if point.loop == "closed"]
    most = max((point.throughput for point in closed), default=0.0)
    reached = (point.concurrency for point in closed if most and point.throughput >= _SATURATED * most)
    return Curve(model, tuple(points), min(reached, default=0), most)


def _fault(tally: Tally) -> str:
    """One request at a time must always be answered."""
    return f"{tally.failed + tally.refused} of {_sent(tally)} failed ({tally.faults[0]})" if tally.faults else ""


def _failure(tally: Tally) -> str:
    """Under load a node may refuse, and may not fail."""
    return f"{tally.failed} of {_sent(tally)} failed ({tally.faults[0]})" if tally.failed else ""


def _sent(tally: Tally) -> int:
    return tally.answered + tally.failed + tally.refused
