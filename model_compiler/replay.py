"""Runs a finished artifact with the engine that runs it on a node, on one thread."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from model_compiler.data.samples import Arrays, Floats, Samples, batches
from runtime.serving.onnx_engine import OnnxEngine, provider_for

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


def open_engine(artifact: Path) -> OnnxEngine:
    """One thread, so that timings compare and sums do not depend on the number of cores."""
    return OnnxEngine(artifact, provider=provider_for("cpu-x86"), threads=1)


def outputs_of(artifact: Path, inputs: Floats | Samples, ends: Ends) -> Floats:
    """The answering output for `inputs` (n, ...), run in batches: (n, ...) float32."""
    return all_outputs_of(artifact, inputs, ends)[ends.output]


def all_outputs_of(artifact: Path, inputs: Floats | Samples, ends: Ends) -> dict[str, Floats]:
    """Every output for `inputs` (n, ...), run in batches: (n, ...) float32 each."""
    samples = Arrays(inputs, np.zeros(len(inputs), np.int64)) if isinstance(inputs, np.ndarray) else inputs
    engine = open_engine(artifact)
    try:
        runs = [engine.run({ends.input: batch}) for batch in batches(samples, ends.rows)]
    finally:
        engine.close()
    return {name: np.concatenate([run[name] for run in runs]) for name in ends.outputs}
