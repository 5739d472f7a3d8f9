"""The sequential probability ratio test for a rate: stops as soon as the evidence allows."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

Decision = Literal["accept", "reject", "continue"]


class Sprt(msgspec.Struct, frozen=True):
    """H0: rate <= p0, against H1: rate >= p1 (Wald 1945, "Sequential Tests of Statistical Hypotheses").

    Reject when the likelihood ratio L reaches 1/alpha, accept when it falls to beta. Wald's own bounds,
    (1-beta)/alpha and beta/(1-alpha), hold the error rates only nearly; these hold them exactly, for every stopping
    time, by Ville's inequality (L is a martingale under p0, 1/L under p1):
    P(reject | rate <= p0) <= alpha and P(accept | rate >= p1) <= beta.
    """

    p0: float
    p1: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        if not (0 < self.p0 < self.p1 < 1 and 0 < self.alpha < 1 and 0 < self.beta < 1):
            raise ValueError(f"An SPRT needs 0 < p0 < p1 < 1 and alpha, beta in (0, 1), not {self}.")

    def log_ratio(self, n: int, k: int) -> float:
        """log L after `k` events in `n` trials."""
        return k * math.log(self.p1 / self.p0) + (n - k) * math.log((1 - self.p1) / (1 - self.p0))

    def decide(self, n: int, k: int) -> Decision:
        """To be asked after every trial; the first decision stands, whatever comes later."""
        ratio = self.log_ratio(n, k)
        if ratio >= -math.log(self.alpha):
            return "reject"
        if ratio <= math.log(self.beta):
            return "accept"
        return "continue"
