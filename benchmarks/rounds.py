"""Interleaved rounds: every case in every round, so that a machine that drifts drifts under all of them alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt


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
    """How long to measure: `rounds` of `seconds` a case, after one of `warm_s` that does not count."""

    rounds: int
    seconds: float
    warm_s: float


FULL = Profile(rounds=9, seconds=1.0, warm_s=0.5)
MINIMAL = Profile(rounds=1, seconds=0.1, warm_s=0.02)


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


async def interleaved(cases: Mapping[Name, Case], profile: Profile) -> dict[Name, list[Run]]:
    """Every round takes the cases in the opposite order of the one before."""
    for case in cases.values():
        await case(profile.warm_s)
    runs: dict[Name, list[Run]] = {name: [] for name in cases}
    for number in range(profile.rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            runs[name].append(await cases[name](profile.seconds))
    return runs


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
