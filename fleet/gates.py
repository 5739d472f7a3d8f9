"""The gate of a rollout: does the new version disagree with the cloud model more often than the old one did?

Only audits count: requests drawn at random and answered by both tiers. Nobody needs labels.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts.errors import FoothillError
from contracts.manifest import Measurements
from contracts.risk import binomial
from contracts.risk.sequential import Decision, Sprt

_SMALLEST_P0 = 0.005
"""A rate of zero cannot be tested against: no version is held to never disagreeing."""


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`alpha` and `beta` are the error rates of the test, `p0` against `p1` = p0 + `margin`.

    p0 is the upper Clopper-Pearson bound, at level `baseline_delta`, of the old version's disagreement. So a version
    no worse than p0 is stopped with probability at most alpha; one no worse than the old version, whose own rate lies
    above p0 with probability at most baseline_delta, at most alpha + baseline_delta (union bound; 0.06 by default).
    One at p1 or worse passes with probability at most beta. With fewer than `min_baseline` audits the old version's
    compile-time measurement stands in, and the sum is only as good as those samples are like live requests.
    """

    alpha: float = 0.01
    beta: float = 0.05
    margin: float = 0.10
    baseline_delta: float = 0.05
    min_baseline: int = 30

    def __post_init__(self) -> None:
        shares = (self.alpha, self.beta, self.margin, self.baseline_delta)
        if not all(0 < share < 1 for share in shares) or self.min_baseline < 1:
            raise ValueError("gate: alpha, beta, margin and baseline_delta must be in (0, 1), min_baseline at least 1")


class Tally(msgspec.Struct, frozen=True):
    """`disagreements` among `n` audits."""

    n: int = 0
    disagreements: int = 0

    def counted(self, agree: bool) -> Tally:
        return Tally(self.n + 1, self.disagreements + (not agree))


class Terms(msgspec.Struct, frozen=True):
    """What was fixed before the first audit of the new version was seen, and where p0 comes from."""

    p0: float
    p1: float
    alpha: float
    beta: float
    baseline: Tally
    source: Literal["audits", "measurements"]
    baseline_delta: float = 0.0

    @property
    def test(self) -> Sprt:
        return Sprt(self.p0, self.p1, self.alpha, self.beta)


class Evidence(msgspec.Struct, frozen=True):
    """The decision and all that it rests on. `llr`: log likelihood ratio, natural.

    `good_stopped` bounds the probability that a version as good as the old one is stopped.
    """

    n: int
    disagreements: int
    p0: float
    p1: float
    alpha: float
    beta: float
    llr: float
    decision: Decision
    baseline: Tally
    source: Literal["audits", "measurements"]
    good_stopped: float


def terms_for(audited: Tally, measured: Tally | None, settings: GateSettings) -> Terms:
    """The test that the successor of a version faces.

    `audited`: live audits of the old version; `measured`: its disagreement on the compiler's test samples. Raises
    FoothillError `conflict` when neither says enough, since a gate without a baseline would be a guess.
    """
    if audited.n >= settings.min_baseline:
        return _terms(audited, "audits", settings)
    if measured is not None and measured.n > 0:
        return _terms(measured, "measurements", settings)
    raise FoothillError(
        "conflict",
        f"The version in service has {audited.n} audits; the gate needs {settings.min_baseline}, or measurements that "
        f'name its agreement with the cloud model. Let it serve longer, publish them, or start with gate "health".',
    )


def judge(terms: Terms, tally: Tally) -> Evidence:
    test = terms.test
    return Evidence(
        n=tally.n,
        disagreements=tally.disagreements,
        p0=terms.p0,
        p1=terms.p1,
        alpha=terms.alpha,
        beta=terms.beta,
        llr=test.log_ratio(tally.n, tally.disagreements),
        decision=test.decide(tally.n, tally.disagreements),
        baseline=terms.baseline,
        source=terms.source,
        good_stopped=terms.alpha + terms.baseline_delta,
    )


def told(evidence: Evidence) -> str:
    """In a sentence."""
    return (
        f"{evidence.disagreements} of {evidence.n} audited answers differ from the cloud's; the old version's "
        f"rate is at most {evidence.p0:.1%} and {evidence.p1:.1%} counts as bad (log likelihood ratio "
        f"{evidence.llr:.2f}; a version as good as the old one is stopped in at most {evidence.good_stopped:.1%} of "
        "rollouts)"
    )


def measured_tally(measurements: Measurements | None, files: frozenset[str]) -> Tally | None:
    """The worst measured agreement among the artifacts `files` that carry a confidence rule, as a tally."""
    if measurements is None:
        return None
    tallies = [
        Tally(measured.samples, round(measured.samples * (1.0 - measured.agreement)))
        for file, measured in measurements.artifacts.items()
        if file in files and measured.agreement is not None and measured.samples > 0
    ]
    return max(tallies, key=lambda tally: tally.disagreements / tally.n, default=None)


def _terms(baseline: Tally, source: Literal["audits", "measurements"], settings: GateSettings) -> Terms:
    bound = binomial.upper_bound(baseline.disagreements, baseline.n, settings.baseline_delta)
    p0 = max(_SMALLEST_P0, bound)
    p1 = p0 + settings.margin
    if p1 >= 1:
        raise FoothillError(
            "conflict",
            f"The version in service may disagree with the cloud model in {bound:.0%} of requests: no gate can find "
            f'a successor that is worse by {settings.margin:.0%}. Start with gate "health".',
        )
    return Terms(p0, p1, settings.alpha, settings.beta, baseline, source, settings.baseline_delta)
