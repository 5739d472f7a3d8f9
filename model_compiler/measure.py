"""What artifacts really do: accuracy and agreement over counted samples, latency side by side."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from contracts.manifest import ConfidenceRule, Measured, Measurements
from model_compiler.calibration import confidence_of
from model_compiler.data.samples import Floats, first
from model_compiler.pack import Packed
from model_compiler.plan import Plan
from model_compiler.progress import Advance, unwatched
from model_compiler.replay import Ends, open_engine, outputs_of

_ROUNDS = 150
_WARM_UP = 20

_TEACHER = "teacher"
_HOW_LATENCY = (
    f"latency: median of {_ROUNDS} runs at batch 1, one thread, ONNX Runtime {onnxruntime.__version__}, "
    "artifacts and teacher taking turns"
)


def measure(plan: Plan, packed: Packed, advance: Advance = unwatched) -> Measurements:
    """Every artifact, and the teacher beside them, on the test samples."""
    paths = {artifact.file: packed.file(artifact.file) for artifact in packed.manifest.artifacts}
    if plan.cloud is not None:
        paths[_TEACHER] = plan.cloud.first_artifact
    test = plan.data.test
    logits = {name: outputs_of(path, test, plan.ends) for name, path in paths.items()}
    advance(0.5)
    taken = latencies_ms(paths, first(test, _ROUNDS), plan.ends)
    measured = {
        name: Measured(
            accuracy=share_equal(values.argmax(axis=1), test.labels),
            samples=len(test),
            latency_ms=taken[name],
            bytes=paths[name].stat().st_size,
        )
        for name, values in logits.items()
    }
    for artifact in packed.manifest.artifacts:
        if artifact.confidence is not None:
            measured[artifact.file] = _against_cloud(
                measured[artifact.file], artifact.confidence, logits[artifact.file], logits[_TEACHER]
            )
    advance(1.0)
    teacher = measured.pop(_TEACHER, None)
    return Measurements(packed.manifest.reference, measured, f"{plan.how}; {_HOW_LATENCY}", machine(), teacher)


def _against_cloud(measured: Measured, rule: ConfidenceRule, edge: Floats, cloud: Floats) -> Measured:
    return msgspec.structs.replace(
        measured,
        agreement=share_equal(edge.argmax(axis=1), cloud.argmax(axis=1)),
        escalation=1.0 - float((confidence_of(edge, rule) >= rule.threshold).mean()),
    )


def share_equal(answers: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> float:
    return float((answers == others).mean())


def latencies_ms(
    artifacts: Mapping[str, Path], inputs: Floats, ends: Ends, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median milliseconds of one run at batch 1 per artifact.

    The artifacts take turns on the same input, so that a machine that drifts slows all of them.
    """
    engines = {name: open_engine(path) for name, path in artifacts.items()}
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(_WARM_UP + _ROUNDS):
        feed = {ends.input: np.ascontiguousarray(inputs[turn % len(inputs)][None])}
        for name, engine in engines.items():
            start = clock()
            engine.run(feed)
            taken[name].append((clock() - start) * 1e3)
    for engine in engines.values():
        engine.close()
    return {name: round(statistics.median(times[_WARM_UP:]), 4) for name, times in taken.items()}


def machine() -> str:
    """Enough to tell two measurements apart, nothing that identifies the host."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
