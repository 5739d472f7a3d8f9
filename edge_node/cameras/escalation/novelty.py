"""Which pictures are unlike those that this camera usually shows, by what a model makes of them inside.

A picture's score is its squared distance from the mean of all before it, each feature by its own variance. It is
unusual when that ranks among the highest share of the last scores: a conformal p-value (Vovk, Gammerman, Shafer:
Algorithmic Learning in a Random World, 2005; for anomalies Laxhammar and Falkman 2010), which holds whatever the
features are like."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

import numpy as np

from runtime.serving.engines.tensors import Array

_MEMORY = 5000
"""So many pictures weigh as much as all that came before them."""
_VARIANCE_LEAST = 1e-12
_FIRST = 100
"""Before so many, the mean is too uncertain for a score to count."""


class Novelty:
    """`share` of all pictures is told as unusual, no more than chance would have it."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._count = 0
        self._mean: Array | None = None
        self._variance: Array | None = None
        self._recent: deque[float] = deque(maxlen=max(1000, round(10 / share)))
        self._sorted: list[float] = []

    def is_unusual(self, features: Array) -> bool:
        """`features` of any shape with one row in front; where there are places behind the channels, their mean counts.

        It is learned from, too. What is no number is unusual, and not learned.
        """
        vector = _vector(features)
        if not np.isfinite(vector).all():
            return True
        if self._mean is None or self._mean.shape != vector.shape:
            self._begin(vector)
        score = self._score(vector)
        unusual = self._count > _FIRST and self._p_value(score) <= self._share
        if self._count > _FIRST:
            self._keep(score)
        self._learn(vector)
        return unusual

    def _begin(self, vector: Array) -> None:
        self._count, self._mean, self._variance = 0, vector.copy(), np.ones_like(vector)
        self._recent.clear()
        self._sorted.clear()

    def _score(self, vector: Array) -> float:
        assert self._variance is not None
        away = vector - self._mean
        return float(np.mean(away * away / np.maximum(self._variance, _VARIANCE_LEAST)))

    def _p_value(self, score: float) -> float:
        at_least = len(self._sorted) - bisect_left(self._sorted, score)
        return (at_least + 1) / (len(self._sorted) + 1)

    def _keep(self, score: float) -> None:
        if len(self._recent) == self._recent.maxlen:
            del self._sorted[bisect_left(self._sorted, self._recent[0])]
        self._recent.append(score)
        insort(self._sorted, score)

    def _learn(self, vector: Array) -> None:
        """Welford's mean and variance, that forget."""
        assert self._mean is not None
        assert self._variance is not None
        self._count += 1
        weight = 1.0 / min(self._count, _MEMORY)
        away = vector - self._mean
        self._mean += weight * away
        self._variance += weight * (away * (vector - self._mean) - self._variance)


def _vector(features: Array) -> Array:
    row = features[0].astype(np.float64)
    return np.asarray(row.reshape(row.shape[0], -1).mean(axis=1)) if row.ndim > 1 else row.reshape(-1)
