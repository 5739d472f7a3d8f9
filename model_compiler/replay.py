"""Runs a finished artifact as a node would: ONNX Runtime on the CPU, one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from model_compiler.samples import Floats

_BATCH = 64


def open_session(artifact: Path) -> onnxruntime.InferenceSession:
    """One intra-op thread, so that timings compare and results do not depend on the number of cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])


def outputs_of(artifact: Path, inputs: Floats) -> Floats:
    """First output of a one-input artifact for `inputs` (n, ...), run in batches: (n, ...) float32."""
    session = open_session(artifact)
    name = session.get_inputs()[0].name
    batches = [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
    return np.concatenate([np.asarray(session.run(None, {name: batch})[0], np.float32) for batch in batches])
