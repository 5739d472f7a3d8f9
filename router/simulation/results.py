"""What many seeds say: times by policy, against the oracle's seed by seed, with intervals."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from router.simulation.case import Case
from router.simulation.run import Run

ORACLE = "oracle"
_RESAMPLES = 2000


class Times(msgspec.Struct, frozen=True):
    """One run's, in ms; counts are shares of its requests."""

    mean_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    failed: float
    refused: float
    hedged: float


class Band(msgspec.Struct, frozen=True):
    """A mean over seeds, and where it lies with 95 of 100: a percentile bootstrap over the seeds."""

    mean: float
    low: float
    high: float


class Row(msgspec.Struct, frozen=True):
    """One policy's. `times_oracle` is its p99 against the oracle's in the same world, `times_oracle_p999` its p99.9."""

    policy: str
    mean_ms: Band
    p50_ms: Band
    p99_ms: Band
    p999_ms: Band
    times_oracle: Band
    times_oracle_p999: Band
    failed: float
    refused: float
    hedged: float


class Report(msgspec.Struct, frozen=True):
    case: Case
    seeds: int
    rows: tuple[Row, ...]


def times(run: Run) -> Times:
    """Raises ValueError where nothing was answered."""
    took_ms = sorted(sample.took_ms for sample in run.samples)
    if not took_ms:
        raise ValueError("No request was answered.")
    count = len(took_ms)
    asked = count + run.failed
    return Times(
        mean_ms=sum(took_ms) / count,
        p50_ms=quantile(took_ms, 0.5),
        p99_ms=quantile(took_ms, 0.99),
        p999_ms=quantile(took_ms, 0.999),
        failed=run.failed / asked,
        refused=len(run.refused_s) / asked,
        hedged=run.hedges / asked,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least of `ordered` that so large a share of it does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(case: Case, found: Mapping[str, Sequence[Times]]) -> Report:
    """`found`: policy to the times of each seed, of the oracle too; the seeds in one order for all."""
    oracle = found[ORACLE]
    rows = tuple(_row(policy, each, oracle) for policy, each in found.items())
    return Report(case, len(oracle), tuple(sorted(rows, key=lambda row: row.p99_ms.mean)))


def band(values: Sequence[float]) -> Band:
    rng = random.Random(len(values))
    count = len(values)
    means = sorted(sum(rng.choices(values, k=count)) / count for _ in range(_RESAMPLES))
    return Band(sum(values) / count, quantile(means, 0.025), quantile(means, 0.975))


def _row(policy: str, found: Sequence[Times], oracle: Sequence[Times]) -> Row:
    pairs = list(zip(found, oracle, strict=True))
    return Row(
        policy=policy,
        mean_ms=band([each.mean_ms for each in found]),
        p50_ms=band([each.p50_ms for each in found]),
        p99_ms=band([each.p99_ms for each in found]),
        p999_ms=band([each.p999_ms for each in found]),
        times_oracle=band([each.p99_ms / best.p99_ms for each, best in pairs]),
        times_oracle_p999=band([each.p999_ms / best.p999_ms for each, best in pairs]),
        failed=sum(each.failed for each in found) / len(found),
        refused=sum(each.refused for each in found) / len(found),
        hedged=sum(each.hedged for each in found) / len(found),
    )
