"""Runs a finished artifact with the engine that runs it on a node, on one thread."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from model_compiler.samples import Floats
from runtime.serving.onnx_engine import OnnxEngine, provider_for

_BATCH = 64


class Ends(msgspec.Struct, frozen=True):
    """The names of a model's one input and one output."""

    input: str
    output: str


def open_engine(artifact: Path) -> OnnxEngine:
    """One thread, so that timings compare and sums do not depend on the number of cores."""
    return OnnxEngine(artifact, provider=provider_for("cpu-x86"), threads=1)


def outputs_of(artifact: Path, inputs: Floats, ends: Ends) -> Floats:
    """The output for `inputs` (n, ...), run in batches: (n, ...) float32."""
    engine = open_engine(artifact)
    batches = [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
    outputs = [engine.run({ends.input: batch})[ends.output] for batch in batches]
    engine.close()
    return np.concatenate(outputs)
