"""Overload: an edge node asked for 70 % and 200 % of what it can do, by callers that do not wait for each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import numpy as np

from benchmarks import bundles
from benchmarks.arrivals import Came, Floats, arrive, poisson, queue_ms
from benchmarks.bundles import Served
from benchmarks.load import Target, post
from benchmarks.machine import Watch
from benchmarks.report import Report, report
from benchmarks.rounds import Case, Profile, Ratio, Rounds, Run, spread
from benchmarks.stage import Server, Stage

NAME = "overload"
STEADY, ENGINE = "70 % of capacity", "70 %, engine alone"
TWICE, AFTER = "200 % of capacity", "30 % right after"
DEADLINE_MS = 500.0
_SHARE_OF_PROFILE = 8.0
_AFTER_S = 5.0
_SLOW = 3.0
_PARTS = 6
_IN_A_ROW = 20

NOTES = (
    "One server core. Capacity: requests a second answered at concurrency 8, closed loop, the mean of right before and "
    f"right after; of the 70 % cases, around each of their {_PARTS} parts. Arrivals are Poisson; every request says "
    "`Foothill-Deadline-Ms: 500`. Latencies run from the time at which a request was due.",
    f"`{ENGINE}`: ONNX Runtime without a server, called as requests are due, of its own capacity, in turns with "
    "the server, and the same arrivals in times of service. What it has over M/D/1 is the machine's.",
    "`goodput of capacity`: answers in time a second, over capacity (for 70 %, at most 0.7). `late`: answers that came "
    "after their deadline, which runs from when the request is sent. `failed`: what is neither an answer nor a refusal "
    "for want of time or room (429, 503, 504).",
    "`p99 of m d 1`: the 99th percentile over that of an M/D/1 queue with the same arrivals and 1/capacity of service "
    "each (Lindley's recursion), by parts, for the machine is not as fast all the time. Their median, lowest and "
    "highest in brackets.",
    f"`back after s`: from the end of the overload until {_IN_A_ROW} in a row are answered, none of them in more "
    "than three times the median of the 70 % case.",
)


class OverloadRow(msgspec.Struct, frozen=True):
    case: str
    capacity_per_s: float
    offered_per_s: float
    seconds: float
    goodput_of_capacity: float
    refused_share: float
    late: int
    failed: int
    p50_ms: float
    p99_ms: float
    p99_of_m_d_1: Ratio | None
    back_after_s: float | None


async def measure(stage: Stage, profile: Profile) -> Report:
    served = bundles.mobilenet(stage.work)
    config = {"tier": "edge", "bundles": [str(served.packed.directory)], "hop_key": "00" * 32}
    node = stage.start_node("edge", config, stage.cores.server)
    target = _target(node, served)
    closed = stage.asking(node, target, 8)
    seconds = profile.rounds * profile.seconds * _SHARE_OF_PROFILE
    rng = np.random.default_rng(0)
    async with stage.engine(served.packed.first_artifact, served.tensor) as engine:
        part_s, around_s = seconds / _PARTS, max(profile.seconds, seconds / _PARTS / 3)
        steady = _Steady(closed, lambda at_s: arrive(target, at_s), around_s)
        alone = _Steady(engine, engine.arrive, around_s)
        for case in (steady, alone):
            await case.begin(profile.warm_s)
        watch, rounds = Watch(stage.pids), Rounds[str]([STEADY])
        for _ in range(_PARTS):
            calls = poisson(0.7, steady.runs[-1].rate * part_s, rng)
            for case in (steady, alone):
                await case.part(calls)
        rounds.keep({STEADY: steady.runs[0]}, watch.read())
    runs = [await closed(max(profile.seconds, seconds / 6))]
    twice = await arrive(target, poisson(2.0 * runs[0].rate, seconds, rng))
    after = await arrive(target, poisson(0.3 * runs[0].rate, min(seconds, _AFTER_S), rng))
    runs.append(await closed(max(profile.seconds, seconds / 6)))
    usual_ms = float(np.median(steady.came.latency_ms))
    later = _mean_rate(*runs)
    rows = [
        steady.row(STEADY),
        alone.row(ENGINE),
        _row(TWICE, later, twice, seconds),
        _row(AFTER, later, after, min(seconds, _AFTER_S), back_after_s=_back_after_s(after, usual_ms)),
    ]
    return report(NAME, rows, NOTES, [rounds])


class _Steady:
    """70 % of what a server, or the engine alone, can do: parts with arrivals, and runs around each of them."""

    def __init__(self, closed: Case, opened: Callable[[Floats], Awaitable[Came]], around_s: float) -> None:
        self.runs: list[Run] = []
        self._closed = closed
        self._opened = opened
        self._around_s = around_s
        self._parts: list[Came] = []

    async def begin(self, warm_s: float) -> None:
        await self._closed(warm_s)
        self.runs.append(await self._closed(self._around_s))

    async def part(self, calls: Floats) -> None:
        """`calls` are times of arrival, in times of service."""
        self._parts.append(await self._opened(calls / self.runs[-1].rate))
        self.runs.append(await self._closed(self._around_s))

    @property
    def came(self) -> Came:
        return Came(*map(np.concatenate, zip(*self._parts, strict=True)))

    def row(self, case: str) -> OverloadRow:
        ratios = [_of_queue(part, _mean_rate(*self.runs[at : at + 2])) for at, part in enumerate(self._parts)]
        seconds = sum(float(part.at_s[-1]) for part in self._parts)
        return _row(case, _mean_rate(*self.runs), self.came, seconds, p99_of_m_d_1=spread(ratios))


def _mean_rate(*runs: Run) -> float:
    """Of the capacity before and after: a machine that others use too is not as fast all the time."""
    return float(np.mean([run.rate for run in runs]))


def _target(node: Server, served: Served) -> Target:
    sent = {**served.infer.headers, "Foothill-Deadline-Ms": f"{DEADLINE_MS:.0f}"}
    return post(node.url, served.infer.path, sent, served.infer.content)


def _row(
    case: str,
    capacity: float,
    came: Came,
    seconds: float,
    *,
    p99_of_m_d_1: Ratio | None = None,
    back_after_s: float | None = None,
) -> OverloadRow:
    answered = came.status == 200
    in_time = answered & (came.latency_ms - came.unsent_ms <= DEADLINE_MS)
    refused = np.isin(came.status, (429, 503, 504))
    shown = came.latency_ms[answered] if answered.any() else came.latency_ms
    return OverloadRow(
        case=case,
        capacity_per_s=capacity,
        offered_per_s=len(came.at_s) / seconds,
        seconds=seconds,
        goodput_of_capacity=float(in_time.sum()) / seconds / capacity,
        refused_share=float(refused.mean()),
        late=int((answered & ~in_time).sum()),
        failed=int((~answered & ~refused).sum()),
        p50_ms=float(np.percentile(shown, 50)),
        p99_ms=float(np.percentile(shown, 99)),
        p99_of_m_d_1=p99_of_m_d_1,
        back_after_s=back_after_s,
    )


def _of_queue(came: Came, capacity: float) -> float:
    """The 99th percentile over that of the queue."""
    return float(np.percentile(came.latency_ms, 99) / np.percentile(queue_ms(came.at_s, 1.0 / capacity), 99))


def _back_after_s(came: Came, usual_ms: float) -> float:
    unusual = (came.status != 200) | (came.latency_ms > _SLOW * usual_ms)
    at = next((at for at in range(len(unusual)) if not unusual[at : at + _IN_A_ROW].any()), len(unusual) - 1)
    return float(came.at_s[at]) if at else 0.0
