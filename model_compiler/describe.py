"""The manifest of a compiled bundle, and the bytes of every file it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.manifest import Artifact, ConfidenceRule, Golden, Manifest, Postprocess, TensorSpec
from model_compiler.data.samples import first
from model_compiler.golden import choose_rows, tolerance_for
from model_compiler.pack import files_of, npy
from model_compiler.plan import Plan
from model_compiler.replay import outputs_of


def describe(
    plan: Plan, files: Mapping[str, Path], rules: Mapping[str, ConfidenceRule]
) -> tuple[Manifest, dict[str, bytes]]:
    """`files`: artifact file to where it was built; `rules`: artifact file to its rule."""
    golden, contents = _golden(plan, files)
    contents.update({name: path.read_bytes() for name, path in files.items()})
    manifest = Manifest(
        name=plan.name,
        version=plan.version,
        model=plan.model,
        task=plan.task,
        tier="edge" if plan.cloud else "cloud",
        files=files_of(contents),
        artifacts=tuple(
            Artifact(each.file, each.precision, "onnxruntime", each.targets, rules.get(each.file))
            for each in plan.artifacts
        ),
        inputs=(TensorSpec(plan.ends.input, "FP32", (-1, *first(plan.data.fit, 1).shape[1:])),),
        outputs=(TensorSpec(plan.ends.output, "FP32", (-1, len(plan.labels))),),
        postprocess=Postprocess(plan.ends.output, "logits"),
        golden=golden,
        preprocess=plan.preprocess,
        labels=plan.labels,
        parents=(plan.cloud.digest,) if plan.cloud else (),
    )
    return manifest, contents


def _golden(plan: Plan, files: Mapping[str, Path]) -> tuple[Golden, dict[str, bytes]]:
    """Chosen among the `fit` samples: real inputs, and neither those that train nor those that measure."""
    fit, ends = plan.data.fit, plan.ends
    outputs = {name: outputs_of(path, fit, ends) for name, path in files.items()}
    quantized = any(artifact.precision == "int8" for artifact in plan.artifacts)
    tolerance = tolerance_for(outputs, quantized=quantized)
    rows = choose_rows(outputs, fit.labels, tolerance)
    input_file = f"golden/inputs/{ends.input}.npy"
    output_files = {name: f"golden/{name}/{ends.output}.npy" for name in files}
    contents = {input_file: npy(fit.batch(rows))}
    contents.update({output_files[name]: npy(values[rows]) for name, values in outputs.items()})
    golden = Golden(
        inputs={ends.input: input_file},
        outputs={name: {ends.output: path} for name, path in output_files.items()},
        atol=tolerance.atol,
        rtol=tolerance.rtol,
    )
    return golden, contents
