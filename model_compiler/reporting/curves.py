"""The points of the risk-against-escalation curve, from the samples that a threshold was fitted on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_compiler.errors import CompileError
from model_compiler.reporting.findings import RiskPoint

_POINTS = 160


def risk_curve(
    confidence: npt.NDArray[np.float64], differs: npt.NDArray[np.bool_], *, points: int = _POINTS
) -> tuple[RiskPoint, ...]:
    """What each threshold would do, from keeping nothing to keeping everything, at most about `points` of them.

    `confidence`: (n,) in 0..1, `differs`: (n,), whether the cloud answers otherwise. Keeping rows with confidence >= λ,
    escalation is the share below λ, risk the share that is kept and differs: the joint risk R(λ), as counted. NaN is
    never kept. Raises CompileError for rows that do not pair, or none.
    """
    if confidence.shape != differs.shape or confidence.ndim != 1 or len(confidence) == 0:
        raise CompileError(f"Confidences {confidence.shape} and answers {differs.shape} do not pair: one each per row.")
    n, known = len(confidence), ~np.isnan(confidence)
    order = np.argsort(-confidence[known], kind="stable")
    values, wrong = confidence[known][order], np.cumsum(differs[known][order])
    last_of_equals = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if len(values) else np.zeros(0, int)
    shown = last_of_equals[_evenly(len(last_of_equals), points)]
    kept = (RiskPoint(float(values[at]), 1.0 - (int(at) + 1) / n, int(wrong[at]) / n) for at in shown)
    return (RiskPoint(1.0, 1.0, 0.0), *kept)


def _evenly(length: int, points: int) -> npt.NDArray[np.int64]:
    """At most `points` distinct places in 0..length-1, both ends among them."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, points)).round().astype(np.int64))
