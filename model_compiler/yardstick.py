"""What one compilation judges its artifacts by, on one set of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.calibration import fit_temperature
from model_compiler.data.folder import UNLABELLED
from model_compiler.data.samples import Floats, Labels, Relabelled, Samples
from model_compiler.metrics import Metric, row_cosines
from model_compiler.onnx_ends import fitted
from model_compiler.plan import Plan
from model_compiler.replay import all_outputs_of
from runtime.serving.models.confidence import softmax

Scores = npt.NDArray[np.float64]


class Yardstick(msgspec.Struct, frozen=True):
    """`name` in words, and `samples` with the labels that the metric wants.

    `rows` scores every row (n,), so that two artifacts can be compared row by row. It is None for a metric of the
    user's own, of which only the `whole` is known.
    """

    name: str
    samples: Samples
    whole: Metric
    rows: Callable[[Mapping[str, Floats], Labels], Scores] | None = None


def yardstick(plan: Plan, samples: Samples, reference: Path) -> Yardstick:
    """The plan's own metric; else accuracy where every sample has a label; else likeness to `reference` (an ONNX file):
    for classifiers the accuracy kept by its own probabilities, for any other task the cosine of all outputs."""
    if plan.metric is not None:
        return Yardstick(plan.metric_name or "metric of the recipe", samples, plan.metric)
    output, classifies = plan.ends.output, plan.task == "classification"
    if classifies and is_labelled(samples):
        return _by_rows("accuracy", samples, lambda outputs, labels: outputs[output].argmax(axis=1) == labels)
    wanted = all_outputs_of(reference, samples, fitted(plan.ends, reference))
    whose = "teacher" if plan.is_compared else "float form"
    # The reference's outputs have as many shapes as there are; a row's number finds its own among them.
    numbered = Relabelled(samples, np.arange(len(samples)))
    if classifies:
        chances = softmax(wanted[output]) if plan.kind == "logits" else wanted[output]
        return _by_rows(
            f"accuracy kept, by the {whose}'s own probabilities",
            numbered,
            lambda outputs, rows: chances_kept(outputs[output], chances[rows]),
        )
    return _by_rows(f"cosine with the {whose}", numbered, lambda outputs, rows: row_cosines(outputs, _of(wanted, rows)))


def rounding_yardstick(plan: Plan, samples: Samples, reference: Path, float_form: Path) -> Yardstick:
    """For choosing among roundings of `float_form`: as `yardstick` of the same `reference`, but with labels the
    `expected_accuracy`."""
    if plan.metric is not None or plan.task != "classification" or not is_labelled(samples):
        return yardstick(plan, samples, reference)
    output = plan.ends.output
    return expected_accuracy(samples, as_logits(plan, all_outputs_of(float_form, samples, plan.ends)[output]), output)


def expected_accuracy(samples: Samples, logits: Floats, output: str) -> Yardstick:
    """The accuracy of roundings of one classifier on labelled samples, for which it gives `logits` (n, classes).

    An answer that differs from its own is not counted right or wrong by the one label, but by what its probabilities,
    calibrated on all labels, say of either (the expectation given the sample: Rao 1945, Blackwell 1947). As far as they
    are right the mean is the same, and chance moves it far less: among many trials, counted hits choose the luckiest.
    """
    labels = samples.labels
    chances, right = softmax(logits / fit_temperature(logits, labels)), logits.argmax(axis=1) == labels
    return _by_rows(
        "expected accuracy",
        Relabelled(samples, np.arange(len(samples))),
        lambda outputs, rows: right[rows] - 1.0 + chances_kept(outputs[output], chances[rows]),
    )


def as_logits(plan: Plan, outputs: Floats) -> Floats:
    """Probabilities are taken as logits known up to a constant: by their logarithms."""
    if plan.kind == "logits":
        return outputs
    return np.asarray(np.log(np.maximum(outputs, np.finfo(np.float32).tiny)), np.float32)


def chances_kept(outputs: Floats, chances: Floats) -> Scores:
    """(n,): 1 less the probability that is lost where the top label of `outputs` is not that of `chances`, both
    (n, classes).

    If the probabilities are right, 1 less its mean is the accuracy lost: a label that was as likely costs nothing.
    """
    rows = np.arange(len(chances))
    return np.asarray(1.0 - (chances.max(axis=1) - chances[rows, outputs.argmax(axis=1)]), np.float64)


def _of(outputs: Mapping[str, Floats], rows: Labels) -> dict[str, Floats]:
    return {name: values[rows] for name, values in outputs.items()}


def is_labelled(samples: Samples) -> bool:
    """Whether every sample has a class number for a label."""
    labels = samples.labels
    return len(labels) > 0 and labels.ndim == 1 and labels.dtype.kind in "iu" and bool((labels != UNLABELLED).all())


def _by_rows(
    name: str, samples: Samples, rows: Callable[[Mapping[str, Floats], Labels], npt.NDArray[Any]]
) -> Yardstick:
    def scores(outputs: Mapping[str, Floats], labels: Labels) -> Scores:
        return np.asarray(rows(outputs, labels), np.float64)

    return Yardstick(name, samples, lambda outputs, labels: float(scores(outputs, labels).mean()), scores)
