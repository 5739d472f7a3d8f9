"""From logits, or a detector's scores, to a probability of agreeing with the cloud: a temperature, or an isotonic map
where it helps, and how good they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import MAX_KNOTS, Isotonic
from model_compiler.data.samples import Floats, Numbers
from model_compiler.errors import CompileError
from runtime.serving.models.confidence import calibrated, softmax

Way = Literal["temperature", "score", "isotonic"]
Confidences = npt.NDArray[np.float64]
Agreements = npt.NDArray[np.bool_]

COLDEST, HOTTEST = 0.05, 20.0
"""Between these temperatures one is sought; one of them is where the search stopped, not what fits best."""
_HALVINGS = 40
"""Six decimals of the hottest temperature are settled by then."""
_FEWEST_FOR_A_MAP = 100
_POOLS = MAX_KNOTS - 2
_IDENTITY = 0.01
_BINS = 15
_SURE = 1e-6


class Scale(Protocol):
    """What makes a confidence of logits: `Maps`, and every `ConfidenceRule`."""

    @property
    def temperature(self) -> float: ...

    @property
    def isotonic(self) -> Isotonic | None: ...


class Maps(msgspec.Struct, frozen=True):
    """confidence = isotonic(max softmax(logits / temperature)), of a detector's object isotonic(score); without
    `isotonic` the softmax, or the score, itself."""

    temperature: float = 1.0
    isotonic: Isotonic | None = None


class Losses(msgspec.Struct, frozen=True):
    """Proper losses of predicted agreement, lower is better: `brier` (mean squared error), `nll` (nats)."""

    brier: float
    nll: float


class Bin(msgspec.Struct, frozen=True):
    """`count` samples with confidences from `low` to `high`: their mean confidence, and the share that agrees."""

    low: float
    high: float
    count: int
    confidence: float
    agreement: float


class Reliability(msgspec.Struct, frozen=True):
    """How well a confidence tells the share of agreement.

    `ece`: expected calibration error, the mean |confidence - agreement| over 15 bins of as many samples each (Guo et
    al. 2017, with the bins of Nguyen and O'Connor 2015: confidences crowd near 1).
    """

    ece: float
    losses: Losses
    bins: tuple[Bin, ...]


class Chosen(msgspec.Struct, frozen=True):
    """What each way gives on all samples, and its losses where it was not fitted; `way` has the lower Brier score."""

    way: Way
    ways: dict[Way, Maps]
    held_out: dict[Way, Losses]

    @property
    def maps(self) -> Maps:
        return self.ways[self.way]


def confidence_of(logits: Floats, scale: Scale) -> Confidences:
    """The confidence of each row as a node computes it: (n,) float64 in 0..1, NaN for logits that are no numbers."""
    return np.asarray(calibrated(softmax(logits, scale.temperature).max(axis=1), scale.isotonic))


def confidence_of_scores(scores: Confidences, scale: Scale) -> Confidences:
    """The confidence of each object as a node computes it of a detector's `scores` (n,): float64 in 0..1."""
    return np.asarray(calibrated(np.clip(scores, 0.0, 1.0), scale.isotonic))


def fit_temperature(logits: Floats, answers: Numbers) -> float:
    """The temperature T that minimises the cross-entropy of softmax(logits / T) with `answers` (n,).

    Guo et al. 2017, "On Calibration of Modern Neural Networks". In 1/T the loss is convex with the slope
    mean(E[logit] - logit of the answer), so bisection on the slope finds the minimum. Kept within 0.05..20.
    """
    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, answers, middle) < 0:
            low = middle
        else:
            high = middle
    return round(2.0 / (low + high), 6)


def fit_isotonic(confidence: Confidences, agrees: Agreements) -> Isotonic:
    """The rising map from `confidence` (n,) in 0..1 to the probability that `agrees` (n,).

    Pool-adjacent-violators (Zadrozny and Elkan 2002), each pool standing at its mean confidence, linear in between
    (Oron and Flournoy 2017, "Centered isotonic regression"). Pools that begin in the same 62nd of the samples are
    merged, so that at most 64 knots remain. One hundredth of the identity is mixed in: the map then rises
    strictly, beyond the outermost pools too, and keeps the order of all confidences.
    """
    from sklearn.isotonic import IsotonicRegression

    pooled = np.round(IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(confidence, agrees), 9)
    pool = np.unique(pooled, return_inverse=True)[1]
    sizes = np.bincount(pool)
    starts = np.cumsum(sizes) - sizes
    pool = np.unique(starts[pool] * _POOLS // len(pool), return_inverse=True)[1]
    sizes = np.bincount(pool)
    centres, levels = np.bincount(pool, confidence) / sizes, np.bincount(pool, agrees) / sizes
    # The regression takes confidences for one that hardly differ, and may give them levels between their neighbours'.
    levels = IsotonicRegression().fit_transform(np.arange(len(levels)), levels, sample_weight=sizes)
    scores, at = np.unique(np.round([0.0, *centres, 1.0], 6), return_index=True)
    raised = (1 - _IDENTITY) * np.array([levels[0], *levels, levels[-1]])[at] + _IDENTITY * scores
    return Isotonic(tuple(scores.tolist()), tuple(np.round(raised, 9).tolist()))


def choose_maps(logits: Floats, answers: Numbers) -> Chosen:
    """Temperature alone, or a map on top of it: whichever has the lower Brier score where it was not fitted.

    `logits` (n, classes) are the artifact's, `answers` (n,) the cloud's labels. Each half of the samples is predicted
    by what the other half fits; both ways are then fitted on all. With fewer than 100 samples temperature alone.
    Rows that are no numbers fit nothing. Raises CompileError where there are no others.
    """
    numbers = np.isfinite(logits).all(axis=1)
    logits, answers = logits[numbers], answers[numbers]
    if not len(logits):
        raise CompileError("There are no samples to fit the confidence on. Give `fit` samples that the model answers.")
    return _choose(
        "temperature",
        logits.argmax(axis=1) == answers,
        lambda rows: Maps(fit_temperature(logits[rows], answers[rows])),
        lambda rows, maps: confidence_of(logits[rows], maps),
    )


def choose_score_maps(scores: Confidences, agrees: Agreements) -> Chosen:
    """The score alone, or a map on top of it: as `choose_maps`, for `scores` (n,) in 0..1 of a detector's objects, of
    which the cloud `agrees` (n,) or not. Raises CompileError where there are none."""
    if not len(scores):
        raise CompileError(
            "There are no objects to fit the confidence on. Give pictures in which the detector finds something."
        )
    return _choose("score", agrees, lambda rows: Maps(), lambda rows, maps: confidence_of_scores(scores[rows], maps))


def reliability(confidence: Confidences, agrees: Agreements) -> Reliability:
    """Of samples (n,) that the confidence was not fitted on; those without a number are left out."""
    numbers = ~np.isnan(confidence)
    confidence, agrees = confidence[numbers], agrees[numbers]
    order = np.argsort(confidence, kind="stable")
    parts = [rows for rows in np.array_split(order, _BINS) if len(rows)]
    bins = tuple(_bin(confidence[rows], agrees[rows]) for rows in parts)
    gaps = sum(each.count * abs(each.confidence - each.agreement) for each in bins)
    return Reliability(gaps / max(1, len(order)), losses_of(confidence, agrees), bins)


def losses_of(confidence: Confidences, agrees: Agreements) -> Losses:
    """`nll` counts no prediction as surer than 1 - 1e-6. Zeros where there are no samples."""
    if not len(confidence):
        return Losses(0.0, 0.0)
    likely = np.clip(np.where(agrees, confidence, 1.0 - confidence), _SURE, 1.0 - _SURE)
    return Losses(float(((confidence - agrees) ** 2).mean()), float(-np.log(likely).mean()))


_Plain = Callable[[Numbers], Maps]
"""Fits the way without a map on these rows."""
_Sure = Callable[[Numbers, Maps], Confidences]
"""What these rows get by such maps."""


def _choose(way: Way, agrees: Agreements, plain: _Plain, sure: _Sure) -> Chosen:
    """The `plain` way, called `way`, or a map on top of it."""
    everything = np.arange(len(agrees))
    if len(agrees) < _FEWEST_FOR_A_MAP:
        return Chosen(way, {way: plain(everything)}, {})

    def fit(rows: Numbers) -> dict[Way, Maps]:
        maps = plain(rows)
        return {way: maps, "isotonic": Maps(maps.temperature, fit_isotonic(sure(rows, maps), agrees[rows]))}

    held_out = _held_out(agrees, fit, sure)
    return Chosen(min(held_out, key=lambda each: held_out[each].brier), fit(everything), held_out)


def _held_out(agrees: Agreements, fit: Callable[[Numbers], dict[Way, Maps]], sure: _Sure) -> dict[Way, Losses]:
    """What each way loses on either half when it was fitted on the other."""
    order = np.random.default_rng(0).permutation(len(agrees))
    halves = order[::2], order[1::2]
    confidence: dict[Way, Confidences] = {}
    for fitted, held in (halves, halves[::-1]):
        for way, maps in fit(fitted).items():
            confidence.setdefault(way, np.empty(len(agrees)))[held] = sure(held, maps)
    return {way: losses_of(predicted, agrees) for way, predicted in confidence.items()}


def _bin(confidence: Confidences, agrees: Agreements) -> Bin:
    return Bin(
        low=float(confidence[0]),
        high=float(confidence[-1]),
        count=len(confidence),
        confidence=float(confidence.mean()),
        agreement=float(agrees.mean()),
    )


def _slope(logits: Floats, answers: Numbers, inverse: float) -> float:
    expected = (softmax(logits, 1.0 / inverse) * logits).sum(axis=1)
    return float((expected - logits[np.arange(len(logits)), answers]).mean())
