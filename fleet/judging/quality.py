"""What nodes count of how a version serves, and what of it is new."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Annotated

import msgspec

EDGES_MS = tuple(round(0.5 * 2 ** (step / 2), 3) for step in range(40))
"""Upper edges of the buckets of latencies, in ms: half a millisecond to about six minutes, two to an octave. One more
bucket takes what is slower."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Counts(msgspec.Struct, frozen=True):
    """Since a node began, of one version. `failed`: requests answered with a fault of the version's or of the node's,
    not of the caller's. `doubtful`: answers below the certified threshold. `latency`: answers by bucket of `EDGES_MS`.
    `strained` of `samples`: looks at the machine that found it short of memory or disk, or slowed down against heat.
    """

    requests: Count = 0
    failed: Count = 0
    answers: Count = 0
    doubtful: Count = 0
    samples: Count = 0
    strained: Count = 0
    latency: Annotated[tuple[Count, ...], msgspec.Meta(max_length=len(EDGES_MS) + 1)] = ()

    def __post_init__(self) -> None:
        parts = ((self.failed, self.requests), (self.doubtful, self.answers), (self.strained, self.samples))
        if any(part > whole for part, whole in parts) or sum(self.latency) > self.answers:
            raise ValueError("a part of these counts is larger than its whole")

    def slower_than(self, edge: int) -> int:
        """Answers above the bucket `edge`."""
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
        requests=combine(one.requests, other.requests),
        failed=combine(one.failed, other.failed),
        answers=combine(one.answers, other.answers),
        doubtful=combine(one.doubtful, other.doubtful),
        samples=combine(one.samples, other.samples),
        strained=combine(one.strained, other.strained),
        latency=tuple(itertools.starmap(combine, itertools.zip_longest(one.latency, other.latency, fillvalue=0))),
    )


def _less(later: int, earlier: int) -> int:
    if later < earlier:
        raise ValueError("it has become less")
    return later - earlier


class Book:
    """Books counts once, however often and in whatever order they are told: a node tells totals, of each of its lives.

    A life has an epoch, which grows with every start. What an earlier life has told late is lost, and never booked
    twice.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, Counts]] = {}

    def take(self, node: str, epoch: int, digest: str, counts: Counts) -> Counts | None:
        """What is new; None for nothing."""
        known_epoch, known = self._last.get((node, digest), (-1, Counts()))
        if epoch < known_epoch:
            return None
        new = counts if epoch > known_epoch else counts.minus(known)
        if new is None or new == Counts(latency=(0,) * len(new.latency)):
            return None
        self._last[node, digest] = (epoch, counts)
        return new

    def forget(self, digest: str) -> None:
        """Nobody judges it any more."""
        for key in [key for key in self._last if key[1] == digest]:
            del self._last[key]
