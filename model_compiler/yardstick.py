"""What one compilation judges its artifacts by, on one set of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.folder import UNLABELLED
from model_compiler.data.samples import Floats, Labels, Relabelled, Samples
from model_compiler.metrics import Metric, row_cosines
from model_compiler.plan import Plan
from model_compiler.replay import all_outputs_of

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
    of the top label for classifiers, of all outputs by their cosine for any other task."""
    if plan.metric is not None:
        return Yardstick(plan.metric_name or "metric of the recipe", samples, plan.metric)
    output = plan.ends.output
    if plan.task == "classification" and is_labelled(samples):
        return _by_rows("accuracy", samples, _same_label(output))
    wanted = all_outputs_of(reference, samples, plan.ends)
    if plan.task == "classification":
        answers = Relabelled(samples, wanted[output].argmax(axis=1))
        return _by_rows("top labels like the float form's", answers, _same_label(output))
    # The reference's outputs have as many shapes as there are; a row's number finds its own among them.
    numbered = Relabelled(samples, np.arange(len(samples)))
    return _by_rows(
        "cosine with the float form", numbered, lambda outputs, labels: row_cosines(outputs, _of(wanted, labels))
    )


def _same_label(output: str) -> Callable[[Mapping[str, Floats], Labels], npt.NDArray[np.bool_]]:
    return lambda outputs, labels: np.asarray(outputs[output].argmax(axis=1) == labels)


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
