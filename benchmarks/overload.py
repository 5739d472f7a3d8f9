"""Overload: an edge node asked for 70 % and 200 % of what it can do, by callers that do not wait for each other."""

from __future__ import annotations

import msgspec
import numpy as np

from benchmarks import bundles
from benchmarks.arrivals import Came, arrive, poisson, queue_ms
from benchmarks.bundles import Served
from benchmarks.load import Target, post
from benchmarks.machine import Watch
from benchmarks.report import Report, report
from benchmarks.rounds import Profile, Ratio, Rounds, Run, spread
from benchmarks.stage import Server, Stage

NAME = "overload"
STEADY, TWICE, AFTER = "70 % of capacity", "200 % of capacity", "30 % right after"
DEADLINE_MS = 500.0
_SHARE_OF_PROFILE = 8.0
_AFTER_S = 5.0
_SLOW = 3.0
_PARTS = 6
_IN_A_ROW = 20

NOTES = (
    "One server core. Capacity: requests a second answered at concurrency 8, closed loop, the mean of right before and "
    f"right after; of the 70 % case, around each of its {_PARTS} parts. Arrivals are Poisson; every request says "
    "`Foothill-Deadline-Ms: 500`. Latencies run from the time at which a request was due.",
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
    seconds = profile.rounds * profile.seconds * _SHARE_OF_PROFILE
    rng = np.random.default_rng(0)
    closed = stage.asking(node, _target(node, served), 8)
    await closed(profile.warm_s)
    watch, rounds = Watch(stage.pids), Rounds[str]([STEADY])
    runs, parts = [await closed(max(profile.seconds, seconds / _PARTS / 3))], []
    for _ in range(_PARTS):
        parts.append(await arrive(_target(node, served), poisson(0.7 * runs[-1].rate, seconds / _PARTS, rng)))
        runs.append(await closed(max(profile.seconds, seconds / _PARTS / 3)))
    queues = spread([_of_queue(part, _mean_rate(*runs[at : at + 2])) for at, part in enumerate(parts)])
    steady, then = Came(*map(np.concatenate, zip(*parts, strict=True))), _mean_rate(*runs)
    runs = [await closed(max(profile.seconds, seconds / 6))]
    twice = await arrive(_target(node, served), poisson(2.0 * runs[0].rate, seconds, rng))
    after = await arrive(_target(node, served), poisson(0.3 * runs[0].rate, min(seconds, _AFTER_S), rng))
    runs.append(await closed(max(profile.seconds, seconds / 6)))
    rounds.keep({STEADY: runs[0]}, watch.read())
    usual_ms = float(np.median(steady.latency_ms))
    later = _mean_rate(*runs)
    rows = [
        _row(STEADY, then, steady, seconds, p99_of_m_d_1=queues),
        _row(TWICE, later, twice, seconds),
        _row(AFTER, later, after, min(seconds, _AFTER_S), back_after_s=_back_after_s(after, usual_ms)),
    ]
    return report(NAME, rows, NOTES, [rounds])


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
