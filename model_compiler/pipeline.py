"""One compilation as a story: from a plan and its samples to a packed, measured bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from contracts.manifest import ConfidenceRule, digest_of
from contracts.strata import stratum_of
from model_compiler.confidence import fit_rule
from model_compiler.data.samples import first
from model_compiler.describe import describe
from model_compiler.export import check_parity, export_onnx, predict
from model_compiler.learning.distil import distil
from model_compiler.learning.train import seeded, train
from model_compiler.measure import measure
from model_compiler.pack import Packed, attach, pack
from model_compiler.plan import Plan
from model_compiler.progress import Progress, silent, stage_of
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import table_of
from model_compiler.replay import outputs_of

if TYPE_CHECKING:
    import torch

_PARITY_ROWS = 256


def compile_bundle(plan: Plan, directory: Path, *, progress: Progress = silent) -> Packed:
    """Compiles `plan` into `directory`. The same plan gives the same bytes, measurements.json apart.

    Raises CompileError when a stage refuses what it was given or what it made.
    """
    with TemporaryDirectory() as work:
        net = learn(plan, progress)
        files = build_artifacts(plan, net, Path(work), progress)
        rules = fit_rules(plan, files, progress)
        packed = pack(directory, *describe(plan, files, rules))
    attach(packed, measure(plan, packed, stage_of(progress, plan.reference, "measure")))
    return packed


def learn(plan: Plan, progress: Progress) -> torch.nn.Module:
    """Trains the network; with a cloud bundle, distils that bundle's artifact into it."""
    with seeded(plan.seed):
        net = plan.build_net()
    if plan.cloud is None:
        advance = stage_of(progress, plan.reference, "train")
        train(net, plan.data.train, plan.schedule, seed=plan.seed, advance=advance)
        return net
    advance = stage_of(progress, plan.reference, "distil")
    teacher_logits = outputs_of(plan.cloud.first_artifact, plan.data.train, plan.ends)
    distil(net, plan.data.train, teacher_logits, plan.schedule, seed=plan.seed, advance=advance)
    return net


def build_artifacts(plan: Plan, net: torch.nn.Module, work: Path, progress: Progress) -> dict[str, Path]:
    """Exports and quantizes into `work`, each artifact checked against `net` on real inputs. File name to path."""
    advance = stage_of(progress, plan.reference, "export")
    exported, real = work / "exported.onnx", first(plan.data.fit, _PARITY_ROWS)
    export_onnx(net, real[:2], exported, plan.ends)
    expected = predict(net, real)
    files = {artifact.file: work / artifact.file for artifact in plan.artifacts}
    for index, artifact in enumerate(plan.artifacts):
        path = files[artifact.file]
        if artifact.precision == "int8":
            quantize_cpu(exported, path, table_of(observe(exported, plan.data.ranges, plan.ends), "minmax"))
        else:
            path.write_bytes(exported.read_bytes())
        check_parity(path, plan.ends, real, expected, precision=artifact.precision)
        advance((index + 1) / len(files))
    return files


def fit_rules(plan: Plan, files: Mapping[str, Path], progress: Progress) -> dict[str, ConfidenceRule]:
    """The confidence rule of each artifact against the cloud bundle's answers; none for a cloud bundle."""
    if plan.cloud is None:
        return {}
    advance = stage_of(progress, plan.reference, "confidence")
    teacher, fit, threshold = plan.cloud.first_artifact, plan.data.fit, plan.data.threshold
    fit_answers = outputs_of(teacher, fit, plan.ends).argmax(axis=1)
    threshold_answers = outputs_of(teacher, threshold, plan.ends).argmax(axis=1)
    rules = {}
    for name, path in files.items():
        rules[name] = fit_rule(
            outputs_of(path, fit, plan.ends),
            fit_answers,
            outputs_of(path, threshold, plan.ends),
            threshold_answers,
            plan.promise,
            stratum=stratum_of(digest_of(path.read_bytes()), plan.cloud.digest, plan.task),
            cloud_digest=plan.cloud.digest,
        ).rule
        advance(len(rules) / len(files))
    return rules
