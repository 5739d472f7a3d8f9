"""One compilation as a story: from a plan and its samples to a packed, measured bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from contracts.manifest import (
    Artifact,
    ConfidenceRule,
    Golden,
    Manifest,
    Measured,
    Measurements,
    Postprocess,
    Precision,
    Preprocess,
    Task,
    TensorSpec,
    digest_of,
)
from contracts.strata import stratum_of
from model_compiler import measure
from model_compiler.confidence import Promise, confidence_of, fit_rule
from model_compiler.distil import distil
from model_compiler.export import check_parity, export_onnx, predict
from model_compiler.golden import choose_rows, tolerance_for
from model_compiler.pack import Packed, attach, files_of, npy, pack
from model_compiler.progress import Progress, silent, stage_of
from model_compiler.quantize import quantize_cpu
from model_compiler.replay import outputs_of
from model_compiler.samples import Data
from model_compiler.train import Schedule, train

if TYPE_CHECKING:
    import torch

FP32_FILE = "fp32.onnx"
_PARITY_ROWS = 256


class ArtifactPlan(msgspec.Struct, frozen=True):
    """One file to build; nodes take the first of a bundle that names their target."""

    file: str
    precision: Precision
    targets: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """A classifier to compile. With a `cloud` bundle it is an edge bundle: distilled from it and certified against it.

    `build_net` makes the untrained network; `how` says in words what was measured on what.
    """

    name: str
    version: str
    model: str
    task: Task
    build_net: Callable[[], torch.nn.Module]
    schedule: Schedule
    data: Data
    preprocess: Preprocess
    labels: tuple[str, ...]
    artifacts: tuple[ArtifactPlan, ...]
    how: str
    cloud: Packed | None = None
    promise: Promise = Promise()
    input_name: str = "image"
    output_name: str = "logits"
    seed: int = 0

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


def compile_bundle(plan: Plan, directory: Path, *, progress: Progress = silent) -> Packed:
    """Compiles `plan` into `directory`. The same plan gives the same bytes, measurements.json apart.

    Raises CompileError when a stage refuses what it was given or what it made.
    """
    with TemporaryDirectory() as work:
        net = learn(plan, progress)
        files = build_artifacts(plan, net, Path(work), progress)
        rules = fit_rules(plan, files, progress)
        packed = pack_bundle(plan, files, rules, directory, progress)
    attach(packed, measure_bundle(plan, packed, progress))
    return packed


def learn(plan: Plan, progress: Progress) -> torch.nn.Module:
    """Trains the network; with a cloud bundle, distils that bundle's artifact into it."""
    net = _seeded_net(plan)
    if plan.cloud is None:
        advance = stage_of(progress, plan.reference, "train")
        train(net, plan.data.train, plan.schedule, seed=plan.seed, advance=advance)
        return net
    advance = stage_of(progress, plan.reference, "distil")
    teacher_logits = outputs_of(_first_file(plan.cloud), plan.data.train.inputs)
    distil(net, plan.data.train, teacher_logits, plan.schedule, seed=plan.seed, advance=advance)
    return net


def build_artifacts(plan: Plan, net: torch.nn.Module, work: Path, progress: Progress) -> dict[str, Path]:
    """Exports and quantizes into `work`, each artifact checked against `net` on real inputs. File name to path."""
    advance = stage_of(progress, plan.reference, "export")
    data, fp32 = plan.data, work / FP32_FILE
    export_onnx(net, data.fit.inputs[:2], fp32, input_name=plan.input_name, output_name=plan.output_name)
    real = data.fit.inputs[:_PARITY_ROWS]
    expected = predict(net, real)
    check_parity(fp32, real, expected, precision="fp32")
    for index, artifact in enumerate(plan.artifacts):
        if artifact.precision == "int8":
            quantize_cpu(fp32, work / artifact.file, data.ranges.inputs, input_name=plan.input_name)
            check_parity(work / artifact.file, real, expected, precision="int8")
        advance((index + 1) / len(plan.artifacts))
    return {artifact.file: work / artifact.file for artifact in plan.artifacts}


def fit_rules(plan: Plan, files: Mapping[str, Path], progress: Progress) -> dict[str, ConfidenceRule]:
    """The confidence rule of each artifact against the cloud bundle's answers; none for a cloud bundle."""
    if plan.cloud is None:
        return {}
    advance = stage_of(progress, plan.reference, "confidence")
    cloud_file, data = _first_file(plan.cloud), plan.data
    fit_answers = outputs_of(cloud_file, data.fit.inputs).argmax(axis=1)
    threshold_answers = outputs_of(cloud_file, data.threshold.inputs).argmax(axis=1)
    rules = {}
    for name, path in files.items():
        rules[name] = fit_rule(
            outputs_of(path, data.fit.inputs),
            fit_answers,
            outputs_of(path, data.threshold.inputs),
            threshold_answers,
            plan.promise,
            stratum=stratum_of(digest_of(path.read_bytes()), plan.cloud.digest, plan.task),
            cloud_digest=plan.cloud.digest,
        )
        advance(len(rules) / len(files))
    return rules


def pack_bundle(
    plan: Plan, files: Mapping[str, Path], rules: Mapping[str, ConfidenceRule], directory: Path, progress: Progress
) -> Packed:
    """Golden inputs and outputs, the manifest, and the content-addressed directory."""
    advance = stage_of(progress, plan.reference, "pack")
    golden, contents = _golden(plan, files)
    contents.update({name: path.read_bytes() for name, path in files.items()})
    batch = (-1,)
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
        inputs=(TensorSpec(plan.input_name, "FP32", batch + plan.data.fit.inputs.shape[1:]),),
        outputs=(TensorSpec(plan.output_name, "FP32", (*batch, len(plan.labels))),),
        postprocess=Postprocess(plan.output_name, "logits"),
        golden=golden,
        preprocess=plan.preprocess,
        labels=plan.labels,
        parents=(plan.cloud.digest,) if plan.cloud else (),
    )
    packed = pack(directory, manifest, contents)
    advance(1.0)
    return packed


def measure_bundle(plan: Plan, packed: Packed, progress: Progress) -> Measurements:
    """Every artifact, and the teacher beside them, on the test samples."""
    advance = stage_of(progress, plan.reference, "measure")
    test = plan.data.test
    paths = {artifact.file: packed.file(artifact.file) for artifact in packed.manifest.artifacts}
    if plan.cloud is not None:
        paths[_TEACHER] = _first_file(plan.cloud)
    logits = {name: outputs_of(path, test.inputs) for name, path in paths.items()}
    answers = {name: values.argmax(axis=1) for name, values in logits.items()}
    advance(0.5)
    taken = measure.latencies_ms(paths, test.inputs)
    rules = {artifact.file: artifact.confidence for artifact in packed.manifest.artifacts}
    measured = {}
    for name, path in paths.items():
        rule = rules.get(name)
        measured[name] = Measured(
            accuracy=measure.share_equal(answers[name], test.labels),
            samples=len(test),
            latency_ms=taken[name],
            bytes=path.stat().st_size,
            agreement=measure.share_equal(answers[name], answers[_TEACHER]) if rule else None,
            escalation=float((confidence_of(logits[name], rule.temperature) < rule.threshold).mean()) if rule else None,
        )
    advance(1.0)
    teacher = measured.pop(_TEACHER, None)
    how = f"{plan.how}; {measure.HOW_LATENCY}"
    return Measurements(packed.manifest.reference, measured, how, measure.machine(), teacher)


_TEACHER = "teacher"


def _golden(plan: Plan, files: Mapping[str, Path]) -> tuple[Golden, dict[str, bytes]]:
    fit = plan.data.fit
    outputs = {name: outputs_of(path, fit.inputs) for name, path in files.items()}
    quantized = any(artifact.precision == "int8" for artifact in plan.artifacts)
    tolerance = tolerance_for(outputs, quantized=quantized)
    rows = choose_rows(outputs, fit.labels, tolerance)
    input_file = f"golden/inputs/{plan.input_name}.npy"
    output_files = {name: f"golden/{name}/{plan.output_name}.npy" for name in files}
    contents = {input_file: npy(fit.inputs[rows])}
    contents.update({output_files[name]: npy(values[rows]) for name, values in outputs.items()})
    golden = Golden(
        inputs={plan.input_name: input_file},
        outputs={name: {plan.output_name: path} for name, path in output_files.items()},
        atol=tolerance.atol,
        rtol=tolerance.rtol,
    )
    return golden, contents


def _first_file(packed: Packed) -> Path:
    return packed.file(packed.manifest.artifacts[0].file)


def _seeded_net(plan: Plan) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return plan.build_net()
