"""What files are judged by: the task metric on the same samples, and how sure a difference between two files is."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from model_compiler.data.samples import Floats, Rows, Samples
from model_compiler.metrics import Metric
from model_compiler.replay import Ends, all_outputs_of

_BLOCKS = 20
_ANSWERS = 128


class Score(msgspec.Struct, frozen=True):
    """`value`: the metric over all samples, a share; `blocks`: over each of up to _BLOCKS equal runs of them.

    `answers`: the outputs of the first _ANSWERS samples, by name.
    """

    value: float
    blocks: tuple[float, ...]
    answers: dict[str, Floats]


class Judge(msgspec.Struct, frozen=True):
    """`literal`: files run as they are written, as TensorRT's do."""

    samples: Samples
    ends: Ends
    metric: Metric
    literal: bool = False

    def score(self, artifact: Path) -> Score:
        outputs = all_outputs_of(artifact, self.samples, self.ends, literal=self.literal)
        labels = self.samples.labels
        parts = np.array_split(np.arange(len(labels)), min(_BLOCKS, len(labels)))
        blocks = [self.metric({name: each[rows] for name, each in outputs.items()}, labels[rows]) for rows in parts]
        answers = {name: each[:_ANSWERS] for name, each in outputs.items()}
        return Score(self.metric(outputs, labels), tuple(blocks), answers)


def few(samples: Samples, rows: int) -> Samples:
    """The first `rows` of them."""
    return Rows(samples, np.arange(min(rows, len(samples))))


def points(one: Score, other: Score) -> float:
    """By how many points `one` is better than `other`."""
    return 100 * (one.value - other.value)


def standard_error(one: Score, other: Score) -> float:
    """Of `points`, in points: from block to block, each with both scores, so that what is hard for both cancels.

    For a mean over n blocks of differences d: s(d) / sqrt(n). Infinite for fewer than two blocks.
    """
    differences = np.subtract(one.blocks, other.blocks)
    return 100 * float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
