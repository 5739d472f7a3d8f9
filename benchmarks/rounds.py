"""Interleaved rounds: every case in every round, so that a machine that drifts drifts under all of them alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.machine import Meanwhile, Watch


class Run(NamedTuple):
    """One case in one round. `server_cpu_s` is what the measured process took, `client_cpu_s` what asking it took."""

    wall_s: float
    server_cpu_s: float
    client_cpu_s: float
    latencies_ms: npt.NDArray[np.float64]

    @property
    def requests(self) -> int:
        return len(self.latencies_ms)

    @property
    def rate(self) -> float:
        return self.requests / self.wall_s

    @property
    def p50_ms(self) -> float:
        return float(np.median(self.latencies_ms))

    @property
    def cpu_us(self) -> float:
        return self.server_cpu_s / self.requests * 1e6


Case = Callable[[float], Awaitable[Run]]
"""Runs for about so many seconds."""

Figure = Callable[[Run], float]
Name = TypeVar("Name", bound=Hashable)


class Profile(msgspec.Struct, frozen=True):
    """How long to measure: `rounds` of `seconds` a case, after one of `warm_s` that does not count.

    A round in which other processes took more than CALM_CORES is measured again, as long as `patience_s` lasts.
    """

    rounds: int
    seconds: float
    warm_s: float
    patience_s: float = 0.0


FULL = Profile(rounds=15, seconds=0.5, warm_s=0.5)
MINIMAL = Profile(rounds=1, seconds=0.1, warm_s=0.02)
CALM_CORES = 0.1
_LOOK_S = 0.5


class Ratio(msgspec.Struct, frozen=True):
    """A case over its baseline, round by round: the median, and the lowest and highest round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{shown(self.median)} ({shown(self.low)} to {shown(self.high)})"


def shown(value: float) -> str:
    """Three digits, which is more than any of these figures deserves."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Rounds(Generic[Name]):
    """The rounds that count, of one benchmark or of a part of it. `meanwhile` has one entry a round."""

    def __init__(self, names: Iterable[Name]) -> None:
        self.runs: dict[Name, list[Run]] = {name: [] for name in names}
        self.meanwhile: list[Meanwhile] = []
        self.repeated = 0

    def keep(self, measured: Mapping[Name, Run], meanwhile: Meanwhile) -> None:
        for name, run in measured.items():
            self.runs[name].append(run)
        self.meanwhile.append(meanwhile)


async def interleaved(cases: Mapping[Name, Case], profile: Profile, children: Sequence[int]) -> Rounds[Name]:
    """Every round takes the cases in the opposite order of the one before. `children` are processes of one's own."""
    for case in cases.values():
        await case(profile.warm_s)
    rounds = Rounds(cases)
    until_s = time.monotonic() + profile.patience_s
    while len(rounds.meanwhile) < profile.rounds:
        await _calm(children, until_s)
        watch = Watch(children)
        forwards = len(rounds.meanwhile) % 2 == 0
        measured = {name: await cases[name](profile.seconds) for name in (cases if forwards else reversed([*cases]))}
        meanwhile = watch.read()
        if meanwhile.other_processes <= CALM_CORES or time.monotonic() > until_s:
            rounds.keep(measured, meanwhile)
        else:
            rounds.repeated += 1
    return rounds


async def _calm(children: Sequence[int], until_s: float) -> None:
    """Returns when other processes rest, at the latest at `until_s`: those who work should not wait for a benchmark."""
    while time.monotonic() < until_s:
        watch = Watch(children)
        await asyncio.sleep(_LOOK_S)
        if watch.read().other_processes <= CALM_CORES:
            return


def ratio(case: Sequence[Run], baseline: Sequence[Run], figure: Figure) -> Ratio:
    return spread([figure(one) / figure(other) for one, other in zip(case, baseline, strict=True)])


def spread(values: Sequence[float]) -> Ratio:
    return Ratio(float(np.median(values)), min(values), max(values))


def middle(runs: Sequence[Run], figure: Figure) -> float:
    return float(np.median([figure(run) for run in runs]))


def percentile_ms(runs: Sequence[Run], percent: float) -> float:
    """Over the requests of all rounds."""
    return float(np.percentile(np.concatenate([run.latencies_ms for run in runs]), percent))


def client_busy(runs: Sequence[Run]) -> float:
    """The share of its core that asking took; near 1 the figures would be the client's."""
    return sum(run.client_cpu_s for run in runs) / sum(run.wall_s for run in runs)
