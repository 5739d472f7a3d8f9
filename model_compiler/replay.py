"""Runs a finished artifact with the engine that runs it on a node, on one thread."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from model_compiler.data.samples import Arrays, Floats, Samples, batches
from runtime.serving.engines.onnx_engine import OnnxEngine
from runtime.serving.engines.providers import ON_CPU

_BATCH = 64


class Ends(msgspec.Struct, frozen=True):
    """The names of a model's one input and of its outputs; the first output is the one that answers.

    `batch`: how many rows every run must have; None where the model takes any number.
    """

    input: str
    outputs: tuple[str, ...]
    batch: int | None = None

    @property
    def output(self) -> str:
        return self.outputs[0]

    @property
    def rows(self) -> int:
        """How many rows to run at a time."""
        return self.batch or _BATCH


def open_engine(artifact: Path, *, literal: bool = False) -> OnnxEngine:
    """One thread, so that timings compare and sums do not depend on the number of cores. Whoever opened it closes it.

    `literal`: every operator computed as it is written. TensorRT's artifacts are checked so, since ONNX Runtime's own
    rewrites around their rounding lose what TensorRT keeps.
    """
    return OnnxEngine(artifact, plan=ON_CPU, threads=1, literal=literal)


def outputs_of(artifact: Path, inputs: Floats | Samples, ends: Ends, *, literal: bool = False) -> Floats:
    """The answering output for `inputs` (n, ...), run in batches: (n, ...) float32."""
    return all_outputs_of(artifact, inputs, ends, literal=literal)[ends.output]


def all_outputs_of(artifact: Path, inputs: Floats | Samples, ends: Ends, *, literal: bool = False) -> dict[str, Floats]:
    """Every output for `inputs` (n, ...), run in batches: (n, ...) float32 each."""
    samples = Arrays(inputs, np.zeros(len(inputs), np.int64)) if isinstance(inputs, np.ndarray) else inputs
    with closing(open_engine(artifact, literal=literal)) as engine:
        runs = [engine.run({ends.input: batch}) for batch in batches(samples, ends.rows)]
    return {name: np.concatenate([run[name] for run in runs]) for name in ends.outputs}
