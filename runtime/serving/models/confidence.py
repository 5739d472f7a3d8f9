"""How sure an answer is: the temperature softmax and the map of the artifact's rule, and a batch's least sure row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from contracts.manifest import Isotonic
from runtime.serving.engines.tensors import Array


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
