"""Golden parity: the bundle's own inputs through HTTP must give its own outputs, within its own tolerances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from contracts.acceptance import Check
from contracts.manifest import Golden
from hil.bench import Bench
from hil.checks.guarded import of_each
from hil.node import NodeUnderTest, Subject
from hil.tensors import Array


async def golden(bench: Bench) -> list[Check]:
    return await of_each(bench, "golden", lambda bench, subject: parity(bench.node, subject))


async def parity(node: NodeUnderTest, subject: Subject) -> Check:
    """Raises one of `hil.node.FAULTS` where the node does not even answer."""
    digest, artifact = subject.config.digest, subject.config.default_model_filename
    manifest = await node.manifest(digest)
    inputs = await node.arrays(digest, manifest, manifest.golden.inputs)
    expected = await node.arrays(digest, manifest, manifest.golden.outputs[artifact])
    got = await _run(node, subject, inputs)
    head, rows = manifest.postprocess, len(next(iter(inputs.values())))
    for name, wanted in expected.items():
        fault = compare(got.get(name), wanted, manifest.golden, labels=head.scores_classes and name == head.output)
        if fault:
            return Check("golden", "failed", f"{manifest.reference}: output {name}: {fault}", subject.name)
    told = f"{rows} rows of {manifest.reference} within {manifest.golden.atol:g} + {manifest.golden.rtol:g}·|expected|"
    return Check("golden", "passed", told, subject.name, {"rows": float(rows)})


def compare(got: Array | None, wanted: Array, golden: Golden, *, labels: bool) -> str:
    """What is wrong with an output, "" when nothing is; `labels`: the best label of each row must agree too.

    Texts must be the same.
    """
    if got is None or got.shape != wanted.shape:
        return f"shape {None if got is None else got.shape}, expected {wanted.shape}"
    if wanted.dtype.kind == "U":
        unlike = np.count_nonzero(got != wanted)
        return f"{unlike} of {wanted.size} texts are others" if unlike else ""
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    # Not-a-number compares false, so it always fails here.
    if not np.all(error <= golden.atol + golden.rtol * np.abs(wanted.astype(np.float64))):
        return f"off by up to {np.max(error):.6g}, {golden.atol:g} + {golden.rtol:g}·|expected| allowed"
    if labels and wanted.ndim == 2:
        agreement = float(np.mean(np.argmax(got, axis=1) == np.argmax(wanted, axis=1)))
        if agreement < golden.min_agreement:
            return f"labels agree in {agreement:.2%} of rows, not {golden.min_agreement:.2%}"
    return ""


async def _run(node: NodeUnderTest, subject: Subject, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """In slices of the largest batch the model takes; in one piece where it takes none."""
    step = subject.config.max_batch_size
    if step <= 0:
        return await node.infer(subject, inputs)
    rows = len(next(iter(inputs.values())))
    runs = [await node.infer(subject, _slice(inputs, at, at + step)) for at in range(0, rows, step)]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def _slice(inputs: Mapping[str, Array], start: int, end: int) -> dict[str, Array]:
    return {name: array[start:end] for name, array in inputs.items()}
