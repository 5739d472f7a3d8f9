"""The Pareto front: which candidates no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from model_compiler.reporting.findings import Candidate, Candidates, Latency, Score


class Point(msgspec.Struct, frozen=True):
    """`cost` is better when lower (bytes, ms), `worth` when higher (a share of the metric)."""

    name: str
    cost: float
    worth: float


def beats(one: Point, other: Point) -> bool:
    """At least as good in both, and better in one."""
    as_good = one.cost <= other.cost and one.worth >= other.worth
    return as_good and (one.cost < other.cost or one.worth > other.worth)


def front(points: Sequence[Point]) -> tuple[Point, ...]:
    """All points that no other beats, by rising cost; equals stay together. O(n log n).

    By rising cost and falling worth, a point is on the front when it is worth more than all before it, or equals the
    last that was.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.cost, -each.worth, each.name)):
        last = kept[-1] if kept else None
        if last is None or point.worth > last.worth or (point.cost, point.worth) == (last.cost, last.worth):
            kept.append(point)
    return tuple(kept)


def by_bytes(candidates: Candidates) -> tuple[tuple[Candidate, Point], ...]:
    """The reference and everything tried that has a score."""
    return tuple(
        (each, Point(each.name, each.bytes, each.score.value))
        for each in everyone(candidates)
        if isinstance(each.score, Score)
    )


def by_latency(candidates: Candidates) -> tuple[tuple[Candidate, Point], ...]:
    """The reference and everything tried that has a score and was timed."""
    return tuple(
        (each, Point(each.name, each.latency.median_ms, each.score.value))
        for each in everyone(candidates)
        if isinstance(each.score, Score) and isinstance(each.latency, Latency)
    )


def everyone(candidates: Candidates) -> tuple[Candidate, ...]:
    """The reference, where there is one, and everything tried."""
    reference = candidates.reference
    return (reference, *candidates.tried) if isinstance(reference, Candidate) else candidates.tried
