"""How a version serves, as counts: what a node has seen of its runs since it began, and what rollouts judge it by."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Annotated

import msgspec

EDGES_MS = tuple(round(0.0625 * 2 ** (step / 2), 4) for step in range(44))
"""Upper edges of the buckets of run times, in ms: a sixteenth of a millisecond to about three minutes, two to an
octave. One more bucket takes what is slower."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Counts(msgspec.Struct, frozen=True):
    """Of one version. `failed` of `runs`: runs of its engine that broke, or gave what is no number for inputs that all
    were. `latency`: the other runs by bucket of `EDGES_MS`. `doubtful` of `judged`: answers with a confidence below the
    threshold that the version was certified at. `strained` of `looks`: looks at the machine that found it short of
    memory or disk, or slowed down against heat.
    """

    runs: Count = 0
    failed: Count = 0
    judged: Count = 0
    doubtful: Count = 0
    looks: Count = 0
    strained: Count = 0
    latency: Annotated[tuple[Count, ...], msgspec.Meta(max_length=len(EDGES_MS) + 1)] = ()

    def __post_init__(self) -> None:
        parts = ((self.failed, self.runs), (self.doubtful, self.judged), (self.strained, self.looks))
        if any(part > whole for part, whole in parts) or sum(self.latency) > self.runs - self.failed:
            raise ValueError("a part of these counts is larger than its whole")

    @property
    def is_some(self) -> bool:
        """Whether anything was counted."""
        return bool(self.runs or self.judged or self.looks)

    def slower_than(self, edge: int) -> int:
        """Runs above the bucket `edge`."""
        return sum(self.latency[edge + 1 :])

    def minus(self, earlier: Counts) -> Counts | None:
        """What is new since `earlier`; None where these are not later counts of the same."""
        try:
            return _combined(self, earlier, _less)
        except ValueError:
            return None

    def plus(self, other: Counts) -> Counts:
        return _combined(self, other, operator.add)


def _combined(one: Counts, other: Counts, combine: Callable[[int, int], int]) -> Counts:
    return Counts(
        runs=combine(one.runs, other.runs),
        failed=combine(one.failed, other.failed),
        judged=combine(one.judged, other.judged),
        doubtful=combine(one.doubtful, other.doubtful),
        looks=combine(one.looks, other.looks),
        strained=combine(one.strained, other.strained),
        latency=tuple(itertools.starmap(combine, itertools.zip_longest(one.latency, other.latency, fillvalue=0))),
    )


def _less(later: int, earlier: int) -> int:
    if later < earlier:
        raise ValueError("it has become less")
    return later - earlier
