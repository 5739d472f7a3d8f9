"""Versions of a model with known rates, and the counts that they would make."""

from __future__ import annotations

import random

import msgspec

from contracts.quality import Counts

TYPICAL_BUCKET = 14
"""8 ms."""


class Version(msgspec.Struct, frozen=True):
    """`slower_by`: how many times as slow as usual."""

    failed: float = 0.01
    disagreeing: float = 0.05
    doubtful: float = 0.2
    strained: float = 0.02
    slower_by: int = 1

    def counts(self, rng: random.Random, runs: int, looks: int) -> Counts:
        failed = hits(rng, runs, self.failed)
        judged = runs - failed
        latency = [0] * 26
        shift = 2 * (self.slower_by - 1).bit_length()
        for _ in range(judged):
            latency[min(25, max(0, round(rng.gauss(TYPICAL_BUCKET, 1.0)) + shift))] += 1
        return Counts(
            runs=runs,
            failed=failed,
            judged=judged,
            doubtful=hits(rng, judged, self.doubtful),
            looks=looks,
            strained=hits(rng, looks, self.strained),
            latency=tuple(latency),
        )


def hits(rng: random.Random, trials: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(trials))
