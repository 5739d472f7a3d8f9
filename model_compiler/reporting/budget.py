"""The budget against what came out: each promise, for each artifact."""

from __future__ import annotations

from typing import Literal

import msgspec

from model_compiler.reporting.findings import Budget, Candidate, Candidates, CompileReport, Latency, Score

Promise = Literal["drop", "speed-up", "latency", "bytes"]
Verdict = Literal["kept", "broken", "not measured"]


class Outcome(msgspec.Struct, frozen=True):
    """`promised` and `measured` in points, times, ms or bytes; `measured` is None where it was not.

    `certain`: the whole interval lies on the verdict's side, so that measuring again would hardly turn it.
    """

    artifact: str
    promise: Promise
    promised: float
    measured: float | None
    verdict: Verdict
    certain: bool
    chosen: bool


class _Seen(msgspec.Struct, frozen=True):
    """A measurement and the worst and best that it may be."""

    value: float
    worst: float
    best: float


def judge(report: CompileReport) -> tuple[Outcome, ...]:
    """Every promise of the budget for every candidate that became an artifact; empty where there is no budget."""
    if not isinstance(report.budget, Budget) or not isinstance(report.candidates, Candidates):
        return ()
    promises = _promises(report.budget)
    packed = [each for each in report.candidates.tried if each.file]
    return tuple(
        _outcome(candidate, promise, limit, _seen(promise, candidate, report.candidates))
        for candidate in packed
        for promise, limit in promises
    )


def _promises(budget: Budget) -> tuple[tuple[Promise, float], ...]:
    all_of_them: tuple[tuple[Promise, float | None], ...] = (
        ("drop", budget.max_drop_points),
        ("speed-up", budget.min_speed_up),
        ("latency", budget.max_latency_ms),
        ("bytes", budget.max_bytes),
    )
    return tuple((promise, limit) for promise, limit in all_of_them if limit is not None)


def _outcome(candidate: Candidate, promise: Promise, limit: float, seen: _Seen | None) -> Outcome:
    if seen is None:
        return Outcome(candidate.file, promise, limit, None, "not measured", False, candidate.chosen)
    holds = _holds(promise, seen.value, limit)
    certain = _holds(promise, seen.worst if holds else seen.best, limit) == holds
    verdict: Verdict = "kept" if holds else "broken"
    return Outcome(candidate.file, promise, limit, seen.value, verdict, certain, candidate.chosen)


def _holds(promise: Promise, value: float, limit: float) -> bool:
    """Up to the last digits of a float: a drop of exactly the promise keeps it."""
    slack = 1e-9 * max(1.0, abs(limit))
    return value >= limit - slack if promise == "speed-up" else value <= limit + slack


def _seen(promise: Promise, candidate: Candidate, candidates: Candidates) -> _Seen | None:
    if promise == "bytes":
        return _Seen(candidate.bytes, candidate.bytes, candidate.bytes)
    if promise == "latency":
        taken = candidate.latency
        return _Seen(taken.median_ms, taken.high_ms, taken.low_ms) if isinstance(taken, Latency) else None
    reference = candidates.reference
    if not isinstance(reference, Candidate):
        return None
    return _drop(candidate, reference) if promise == "drop" else _speed_up(candidate, reference)


def _drop(candidate: Candidate, reference: Candidate) -> _Seen | None:
    """In points. Without an interval nothing is certain: any drop may be."""
    own, other = candidate.score, reference.score
    if not isinstance(own, Score) or not isinstance(other, Score):
        return None
    if own.against_reference is None:
        drop = 100.0 * (other.value - own.value)
        return _Seen(drop, 100.0, -100.0)
    against = own.against_reference
    return _Seen(-100.0 * against.mean, -100.0 * against.low, -100.0 * against.high)


def _speed_up(candidate: Candidate, reference: Candidate) -> _Seen | None:
    own, other = candidate.latency, reference.latency
    if not isinstance(own, Latency) or not isinstance(other, Latency) or min(own.low_ms, other.low_ms) <= 0:
        return None
    return _Seen(other.median_ms / own.median_ms, other.low_ms / own.high_ms, other.high_ms / own.low_ms)
