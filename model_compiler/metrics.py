"""What an artifact is judged by: a share of 1, higher is better; a hundredth is one point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats, Labels, Samples
from model_compiler.replay import Ends, all_outputs_of

Metric = Callable[[Mapping[str, Floats], Labels], float]
"""(every output (n, ...) by name, labels (n, ...)) -> a share."""


def accuracy(output: str) -> Metric:
    """How often the largest value of `output` (n, classes) is at the label."""
    return lambda outputs, labels: float((outputs[output].argmax(axis=1) == labels).mean())


def top_label_agreement(output: str, reference: Floats) -> Metric:
    """How often the top label is that of `reference` (n, classes), the same rows through another model."""
    answers = reference.argmax(axis=1)
    return lambda outputs, labels: float((outputs[output].argmax(axis=1) == answers).mean())


def fidelity(reference: Mapping[str, Floats]) -> Metric:
    """The mean cosine between each row of each output and the same row of `reference`; for models without labels."""

    def metric(outputs: Mapping[str, Floats], labels: Labels) -> float:
        return float(row_cosines(outputs, reference).mean())

    return metric


def score(artifact: Path, samples: Samples, ends: Ends, metric: Metric) -> float:
    """`metric` of the artifact's outputs for all `samples`."""
    return metric(all_outputs_of(artifact, samples, ends), samples.labels)


def row_cosines(outputs: Mapping[str, Floats], reference: Mapping[str, Floats]) -> npt.NDArray[np.float64]:
    """(n,): of each row the mean over the outputs of the cosine with the same row of `reference`."""
    return np.asarray(np.mean([_cosines(outputs[name], wanted) for name, wanted in reference.items()], axis=0))


def _cosines(values: Floats, wanted: Floats) -> npt.NDArray[np.float64]:
    one, other = (each.reshape(len(each), -1).astype(np.float64) for each in (values, wanted))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    alike = (one == other).all(axis=1).astype(np.float64)  # for rows of zeros, which have no direction
    return np.asarray(np.divide((one * other).sum(axis=1), lengths, out=alike, where=lengths > 0))
