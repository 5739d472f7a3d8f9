"""The confidence rule of one artifact: a temperature, then the threshold that holds the joint risk."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import ConfidenceRule
from contracts.risk import threshold
from model_compiler.data.samples import Floats
from runtime.serving.confidence import softmax

_COLDEST, _HOTTEST = 0.05, 20.0


class Promise(msgspec.Struct, frozen=True):
    """At most a share `epsilon` is kept at the edge and differs from the cloud, with confidence 1 - `delta`."""

    epsilon: float = 0.03
    delta: float = 0.05


def confidence_of(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """max softmax(logits / temperature) of each row: (n,) float64 in 0..1."""
    return np.asarray(softmax(logits, temperature).max(axis=1))


def fit_temperature(logits: Floats, answers: npt.NDArray[np.int64]) -> float:
    """The temperature T that minimises the cross-entropy of softmax(logits / T) with `answers` (n,).

    Guo et al. 2017, "On Calibration of Modern Neural Networks". In 1/T the loss is convex with the slope
    mean(E[logit] - logit of the answer), so bisection on the slope finds the minimum. Kept within 0.05..20.
    """
    low, high = 1.0 / _HOTTEST, 1.0 / _COLDEST
    for _ in range(60):
        middle = (low + high) / 2
        if _slope(logits, answers, middle) < 0:
            low = middle
        else:
            high = middle
    return round(2.0 / (low + high), 6)


def fit_rule(
    fit_logits: Floats,
    fit_answers: npt.NDArray[np.int64],
    threshold_logits: Floats,
    threshold_answers: npt.NDArray[np.int64],
    promise: Promise,
    *,
    stratum: str,
    cloud_digest: str,
) -> ConfidenceRule:
    """Logits are the artifact's, answers the cloud bundle's, on two disjoint sets of samples."""
    temperature = fit_temperature(fit_logits, fit_answers)
    fitted = threshold.fit(
        confidence_of(threshold_logits, temperature),
        threshold_logits.argmax(axis=1) != threshold_answers,
        epsilon=promise.epsilon,
        delta=promise.delta,
    )
    return ConfidenceRule(
        temperature=temperature,
        threshold=fitted.threshold,
        epsilon=promise.epsilon,
        delta=promise.delta,
        n=fitted.n,
        feasible=fitted.feasible,
        stratum=stratum,
        cloud_digest=cloud_digest,
    )


def _slope(logits: Floats, answers: npt.NDArray[np.int64], inverse: float) -> float:
    expected = (softmax(logits, 1.0 / inverse) * logits).sum(axis=1)
    return float((expected - logits[np.arange(len(logits)), answers]).mean())
