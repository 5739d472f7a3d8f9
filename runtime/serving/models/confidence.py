"""How sure an answer is: the temperature softmax and the map of the artifact's rule, and a batch's least sure row; of a
detector, the map of each score, and a picture's least sure label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from contracts.manifest import ConfidenceRule, Isotonic
from runtime.serving.engines.tensors import Array
from runtime.serving.models.found import Found


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Probabilities [rows, classes], float64, of `logits / temperature` (Guo et al. 2017, arXiv:1706.04599)."""
    scaled = logits.astype(np.float64) / temperature
    with np.errstate(invalid="ignore"):
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sharpen(probabilities: Array, temperature: float) -> Array:
    """The same rule for a model that ends in a softmax: its logits are known up to a constant, as logarithms."""
    if temperature == 1.0:
        return probabilities.astype(np.float64)
    smallest = np.finfo(np.float64).tiny
    return softmax(np.log(np.maximum(probabilities.astype(np.float64), smallest)), temperature)


def calibrated(confidence: Array, isotonic: Isotonic | None) -> Array:
    """The probability that the cloud would answer the same: `confidence` (n,) through the rule's map, float64 (n,)."""
    if isotonic is None:
        return confidence
    return np.asarray(np.interp(confidence, isotonic.scores, isotonic.probabilities))


def of_each(probabilities: Array, ends: Sequence[int], isotonic: Isotonic | None = None) -> list[float]:
    """How sure each request is of its rows, which end at `ends`: as its least sure one.

    A row is as sure as its largest probability, calibrated. 0 where a value is not finite: an answer that is no number
    must never pass for a sure one.
    """
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(probabilities.sum(axis=1))
    sure = np.where(finite, calibrated(probabilities.max(axis=1), isotonic), 0.0)
    if len(ends) == len(sure):
        return cast(list[float], sure.tolist())
    return cast(list[float], np.minimum.reduceat(sure, [0, *ends[:-1]]).tolist())


def sure_of(score: float, rule: ConfidenceRule | None) -> float | None:
    """The probability that the cloud would say the same label of an object that a detector has found with this `score`
    (0..1). None without a rule; 0 for a score that is not finite."""
    if rule is None:
        return None
    if not math.isfinite(score):
        return 0.0
    return float(calibrated(np.array([min(max(score, 0.0), 1.0)]), rule.isotonic)[0])


def of_pictures(
    found: Sequence[Found], finite: Sequence[bool], ends: Sequence[int], rule: ConfidenceRule
) -> list[float | None]:
    """How sure each request is of what was found in its rows, which end at `ends`: as its least sure one.

    0 where a row's outputs are not all `finite`. Else None where nothing was found in one: that promises nothing.
    """
    sure = [_of_picture(each, rule) if sound else 0.0 for each, sound in zip(found, finite, strict=True)]
    return [_least(sure[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _of_picture(found: Found, rule: ConfidenceRule) -> float | None:
    """As of the least sure of the labels that it names, each by its best object."""
    if not len(found.labels):
        return None
    _, best = np.unique(found.labels, return_index=True)  # scores fall: the first is the best
    return sure_of(float(found.scores[best].min()), rule)


def _least(sure: Sequence[float | None]) -> float | None:
    told = [each for each in sure if each is not None]
    if 0.0 in told:
        return 0.0
    return min(told) if told and len(told) == len(sure) else None
