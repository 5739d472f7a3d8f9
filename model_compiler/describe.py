"""The manifest of a compiled bundle, and the bytes of every file it names."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Artifact, ConfidenceRule, Golden, Manifest, Postprocess, check
from model_compiler.data.samples import first
from model_compiler.errors import CompileError
from model_compiler.golden import choose_rows, rows_for, tolerance_for
from model_compiler.onnx_ends import load, tensor_specs
from model_compiler.pack import files_of, npy
from model_compiler.plan import ArtifactPlan, Plan, most_exact
from model_compiler.replay import all_outputs_of
from runtime.serving.models.postprocess import check_found, check_head

_CANDIDATES, _LEAST_CANDIDATES = 512, 16
_MOST_BYTES = 64 << 20
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}")
"""Not a digit first: made names begin with one."""
_STRANGE = re.compile(r"[^A-Za-z0-9_.\-]")


def describe(
    plan: Plan,
    artifacts: Sequence[ArtifactPlan],
    files: Mapping[str, Path],
    rules: Mapping[str, ConfidenceRule],
) -> tuple[Manifest, dict[str, bytes]]:
    """`artifacts` in the order in which nodes prefer them; `files`: artifact file to where it was built; `rules`:
    artifact file to its rule."""
    golden, contents = _golden(plan, artifacts, files)
    contents.update({name: path.read_bytes() for name, path in files.items()})
    inputs, outputs = tensor_specs(load(files[most_exact(artifacts).file]))
    manifest = Manifest(
        name=plan.name,
        version=plan.version,
        model=plan.model,
        task=plan.task,
        tier=plan.tier,
        files=files_of(contents),
        artifacts=tuple(
            Artifact(each.file, each.precision, each.runtime, each.targets, rules.get(each.file)) for each in artifacts
        ),
        inputs=inputs,
        outputs=outputs,
        postprocess=Postprocess(plan.ends.output, plan.kind, plan.detector),
        golden=golden,
        preprocess=plan.preprocess,
        labels=plan.labels,
        parents=(plan.cloud.digest,) if plan.cloud else (),
        max_batch=plan.ends.batch or plan.max_batch,
    )
    _check_head(manifest, golden, contents)
    return manifest, contents


def _check_head(manifest: Manifest, golden: Golden, contents: Mapping[str, bytes]) -> None:
    """A node would refuse it later. Raises CompileError."""
    try:
        check(manifest)
        check_head(manifest)
        for paths in golden.outputs.values():
            check_found({name: np.load(io.BytesIO(contents[path])) for name, path in paths.items()}, manifest)
    except FoothillError as error:
        if manifest.postprocess.detector is None:
            raise
        raise CompileError(f"{error.message} Say otherwise in --head FILE.toml.") from error


def _golden(
    plan: Plan, artifacts: Sequence[ArtifactPlan], files: Mapping[str, Path]
) -> tuple[Golden, dict[str, bytes]]:
    """Real inputs; those of `fit` neither train nor measure."""
    row_bytes = first(plan.data.some, 1).nbytes
    candidates = first(plan.data.some, min(_CANDIDATES, max(_LEAST_CANDIDATES, _MOST_BYTES // row_bytes)))
    count = min(plan.ends.batch or rows_for(row_bytes), len(candidates))
    literal = {each.file: each.literal for each in artifacts}
    replies = {name: all_outputs_of(path, candidates, plan.ends, literal=literal[name]) for name, path in files.items()}
    rounded = any(artifact.precision != "fp32" for artifact in artifacts)
    # Numbers of classes are no measure: told exactly, they would widen what scores may be off by.
    numbers = plan.detector.classes if plan.detector is not None else ""
    widest = {
        f"{name} {output}": values
        for name, reply in replies.items()
        for output, values in reply.items()
        if output != numbers
    }
    tolerance = tolerance_for(widest, quantized=rounded)
    answers = {name: reply[plan.ends.output] for name, reply in replies.items()}
    judged = plan.kind in ("logits", "probabilities") and (len(plan.data.validation) or len(plan.data.test))
    if judged:
        rows = choose_rows(answers, answers[most_exact(artifacts).file].argmax(axis=1), tolerance, count)
    else:  # Noise proves the arithmetic; which label it gets says nothing.
        rows = np.linspace(0, len(candidates) - 1, count).astype(np.int64)
    input_file = f"golden/inputs/{_path(0, plan.ends.input)}.npy"
    contents = {input_file: npy(candidates[rows])}
    outputs: dict[str, dict[str, str]] = {}
    for name, reply in replies.items():
        outputs[name] = {output: f"golden/{name}/{_path(index, output)}.npy" for index, output in enumerate(reply)}
        contents.update({outputs[name][output]: npy(values[rows]) for output, values in reply.items()})
    least = 1.0 if judged else 0.0
    return Golden({plan.ends.input: input_file}, outputs, tolerance.atol, tolerance.rtol, least), contents


def _path(index: int, tensor: str) -> str:
    """A file name for a tensor: its own name where that is a plain one."""
    return tensor if _PLAIN.fullmatch(tensor) else f"{index}-{_STRANGE.sub('_', tensor)[:64]}"
