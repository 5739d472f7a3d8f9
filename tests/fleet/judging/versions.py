"""Versions of a model with known rates, and the counts that they would make."""

from __future__ import annotations

import random

import msgspec

from fleet.judging.quality import Counts

TYPICAL_BUCKET = 8
"""8 ms."""


class Version(msgspec.Struct, frozen=True):
    """`slower_by`: how many times as slow as usual."""

    failed: float = 0.01
    disagreeing: float = 0.05
    doubtful: float = 0.2
    strained: float = 0.02
    slower_by: int = 1

    def counts(self, rng: random.Random, requests: int, samples: int) -> Counts:
        failed = hits(rng, requests, self.failed)
        answers = requests - failed
        latency = [0] * 20
        shift = 2 * (self.slower_by - 1).bit_length()
        for _ in range(answers):
            latency[min(19, max(0, round(rng.gauss(TYPICAL_BUCKET, 1.0)) + shift))] += 1
        return Counts(
            requests=requests,
            failed=failed,
            answers=answers,
            doubtful=hits(rng, answers, self.doubtful),
            samples=samples,
            strained=hits(rng, samples, self.strained),
            latency=tuple(latency),
        )


def hits(rng: random.Random, trials: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(trials))
