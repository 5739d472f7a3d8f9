"""The confidence rule of one artifact: maps fitted on some samples, a threshold that holds the joint risk on others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from contracts.manifest import ConfidenceRule
from contracts.risk import threshold
from model_compiler.calibration import (
    Agreements,
    Chosen,
    Confidences,
    Maps,
    Reliability,
    Scale,
    choose_maps,
    choose_score_maps,
    confidence_of,
    confidence_of_scores,
    reliability,
)
from model_compiler.data.samples import Floats, Numbers


class Promise(msgspec.Struct, frozen=True):
    """At most a share `epsilon` is kept at the edge and differs from the cloud, with confidence 1 - `delta`.

    At most the share `max_escalation` may escalate for it; what needs more is no promise.
    """

    epsilon: float = 0.03
    delta: float = 0.05
    max_escalation: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < 1 and 0 < self.delta < 1 and 0 <= self.max_escalation <= 1):
            raise ValueError(
                f"A promise needs epsilon and delta between 0 and 1, and max_escalation from 0 to 1, not {self}."
            )


class Certification(msgspec.Struct, frozen=True):
    """What `n` threshold samples certify: of them `kept_wrong` are kept and differ, and a share `escalation` escalates.

    Not `feasible`: everything escalates; `smallest_epsilon` is then the least joint risk that the samples certify
    at confidence 1 - `promise.delta` while no more escalates than the budget; else it is the promised one. Which
    thresholds the budget leaves is settled on the samples that fit the maps: `escalation`, seen on others, may lie a
    little above it. A promise that is changed after this was seen is sound on samples that were not used for it.
    `disagreement`: the share of all of them that differs, kept or not.
    """

    promise: Promise
    feasible: bool
    smallest_epsilon: float
    escalation: float
    n: int
    kept_wrong: int
    disagreement: float

    @property
    def message(self) -> str:
        """One or two sentences for whoever compiles."""
        promise, sure = self.promise, f"at confidence {1 - self.promise.delta:.4g}"
        if self.feasible:
            return (
                f"At most {promise.epsilon:.4g} of all requests are kept at the edge and answered unlike the cloud, "
                f"{sure}: {self.kept_wrong} of {self.n} samples are, and {self.escalation:.1%} of them escalate."
            )
        within = f" with at most {promise.max_escalation:.1%} escalating" if promise.max_escalation < 1 else ""
        return (
            f"INFEASIBLE: {self.n} samples do not certify a joint risk of {promise.epsilon:.4g} {sure}{within}. "
            f"The smallest they certify is {self.smallest_epsilon:.4g}. Everything escalates until you allow that much"
            f"{' or a larger max_escalation' if within else ''}, give more threshold samples, or a student that "
            f"differs from the cloud less often than in {self.disagreement:.1%} of cases."
        )


class FittedRule(msgspec.Struct, frozen=True):
    """A rule and what is known of it.

    `reliability`, on the threshold samples: of the bare softmax, or score, ("none"), and of each way that was
    considered.
    """

    rule: ConfidenceRule
    certification: Certification
    chosen: Chosen
    reliability: dict[str, Reliability]


class Certified(msgspec.Struct, frozen=True):
    """A rule, and the threshold samples that it was certified on: (confidence, whether edge and cloud differ)."""

    fitted: FittedRule
    confidence: tuple[float, ...]
    differs: tuple[bool, ...]


class Scored(NamedTuple):
    """Objects of a detector: their `scores` (n,) in 0..1, and whether the cloud `agrees` (n,) on each."""

    scores: Confidences
    agrees: Agreements


def fit_rule(
    fit_logits: Floats,
    fit_answers: Numbers,
    threshold_logits: Floats,
    threshold_answers: Numbers,
    promise: Promise,
    *,
    stratum: str,
    cloud_digest: str,
) -> FittedRule:
    """Logits (n, classes) are the artifact's, answers (n,) the cloud bundle's, on two disjoint sets of samples.

    The first set fits the maps and says which thresholds keep within the budget; the second certifies one.
    """
    return _fit(
        choose_maps(fit_logits, fit_answers),
        lambda scale: confidence_of(fit_logits, scale),
        lambda scale: confidence_of(threshold_logits, scale),
        threshold_logits.argmax(axis=1) == threshold_answers,
        promise,
        _Against(stratum, cloud_digest),
    )


def fit_score_rule(fit: Scored, certify: Scored, promise: Promise, *, stratum: str, cloud_digest: str) -> FittedRule:
    """As `fit_rule`, of a detector. The objects of `certify` are independent: one of a picture at most."""
    return _fit(
        choose_score_maps(fit.scores, fit.agrees),
        lambda scale: confidence_of_scores(fit.scores, scale),
        lambda scale: confidence_of_scores(certify.scores, scale),
        certify.agrees,
        promise,
        _Against(stratum, cloud_digest),
    )


class _Against(NamedTuple):
    stratum: str
    cloud_digest: str


_Sure = Callable[[Scale], Confidences]


def _fit(
    chosen: Chosen, fit_sure: _Sure, sure: _Sure, agrees: Agreements, promise: Promise, against: _Against
) -> FittedRule:
    """`fit_sure` and `sure`: what either set of samples gets by such maps; `agrees` is of the second."""
    differs = ~agrees
    fitted = threshold.fit(
        sure(chosen.maps),
        differs,
        epsilon=promise.epsilon,
        delta=promise.delta,
        strictest=threshold.strictest_within(fit_sure(chosen.maps), promise.max_escalation),
    )
    rule = ConfidenceRule(
        temperature=chosen.maps.temperature,
        threshold=fitted.threshold,
        epsilon=promise.epsilon,
        delta=promise.delta,
        n=fitted.n,
        feasible=fitted.feasible,
        stratum=against.stratum,
        cloud_digest=against.cloud_digest,
        isotonic=chosen.maps.isotonic,
    )
    certification = Certification(
        promise=promise,
        feasible=fitted.feasible,
        smallest_epsilon=fitted.smallest_epsilon,
        escalation=fitted.escalation,
        n=fitted.n,
        kept_wrong=fitted.kept_wrong,
        disagreement=float(differs.mean()) if fitted.n else 0.0,
    )
    steps = [("none", Maps()), *chosen.ways.items()]
    told = {name: reliability(sure(maps), agrees) for name, maps in steps}  # on samples that fitted none of them
    return FittedRule(rule, certification, chosen, told)
