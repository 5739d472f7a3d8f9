"""The artifacts of a float model: one file for every precision that its targets want, each held against the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from contracts.manifest import Precision
from model_compiler.compilation import Compilation
from model_compiler.data.samples import first
from model_compiler.export import Parity, check_same, net_outputs, parity
from model_compiler.learn import Learned, Model, digest_of_net, export_net, sample_of, save_net, saved_net
from model_compiler.learning.qat import fine_tune
from model_compiler.learning.train import Schedule
from model_compiler.plan import ArtifactPlan
from model_compiler.progress import Advance
from model_compiler.quantizing.half import to_fp16
from model_compiler.quantizing.int4 import Int4Result, quantize_int4
from model_compiler.quantizing.search import CPU, TENSORRT, Form, Request, Search, search
from model_compiler.replay import all_outputs_of
from model_compiler.stages import file_digest
from model_compiler.yardstick import yardstick

if TYPE_CHECKING:
    import torch

_SEARCH_FILE, _INT4_FILE = "search.json", "int4.json"
_PARITY_ROWS = 64
_LEAST_SHARE = 0.25
"""Of the budget, which quantizing may always use: a student at its limit is not kept in float for that alone."""


class Qat(msgspec.Struct, frozen=True):
    """The least of the int8 files' scores on validation samples without and with quantization-aware training."""

    epochs: int
    before: float
    after: float
    kept: bool


class Int8(msgspec.Struct, frozen=True):
    """Where the int8 files lie, and how they came about."""

    directory: Path
    search: Search
    qat: Qat | None = None


class Built(msgspec.Struct, frozen=True):
    """`files`: artifact file to where it lies; `order`: the artifacts as nodes should prefer them."""

    files: dict[str, Path]
    order: tuple[ArtifactPlan, ...]
    parity: tuple[Parity, ...]
    int8: Int8 | None = None
    int4: Int4Result | None = None


def build(work: Compilation, learned: Learned) -> Built:
    """Every artifact that the plan names. Raises CompileError where one cannot be made, or lost the model."""
    model = learned.student
    int8 = _int8(work, learned) if _files(work, "int8") else None
    half, int4 = (_float_stage(work, model, precision) for precision in ("fp16", "int4"))
    places = {"fp32": model.onnx, "fp16": half, "int4": int4}
    files = {}
    for artifact in work.plan.artifacts:
        if artifact.precision == "int8" and int8 is not None:
            files[artifact.file] = int8.directory / form_of(artifact).file
        else:
            place = places[artifact.precision]
            assert place is not None  # its stage ran, since the artifact is planned
            files[artifact.file] = place
    counted = msgspec.json.decode((int4.parent / _INT4_FILE).read_bytes(), type=Int4Result) if int4 else None
    return Built(files, _order(work, int8), _parity(work, model, files), int8, counted)


def form_of(artifact: ArtifactPlan) -> Form:
    return CPU if artifact.runtime == "onnxruntime" else TENSORRT


def _files(work: Compilation, precision: Precision) -> list[ArtifactPlan]:
    return [artifact for artifact in work.plan.artifacts if artifact.precision == precision]


def _float_stage(work: Compilation, model: Model, precision: Precision) -> Path | None:
    """The fp16 or int4 file; None where none is planned."""
    planned = _files(work, precision)
    if not planned:
        return None
    name = planned[0].file

    def produce(directory: Path, advance: Advance) -> None:
        if precision == "fp16":
            to_fp16(model.onnx, directory / name)
            return
        result = quantize_int4(model.onnx, directory / name, block=work.plan.quantizing.int4_block)
        (directory / _INT4_FILE).write_bytes(msgspec.json.encode(result))

    told = {"onnx": file_digest(model.onnx), "file": name, "block": work.plan.quantizing.int4_block}
    return work.stage(precision, told, produce) / name


def _int8(work: Compilation, learned: Learned) -> Int8:
    """By calibration alone where that keeps the budget; else also by training, and by leaving layers in float."""
    plan, learning = work.plan, work.plan.learning
    schedule, net = (learning.qat if learning is not None else None), learned.student.net
    if schedule is None or net is None or not len(plan.data.train):
        return _searched(work, learned, learned.student, fall_back=plan.quantizing.fall_back)
    plain = _searched(work, learned, learned.student, fall_back=False)
    if plain.search.holds:
        return plain
    trained = _searched(work, learned, _trained_for_int8(work, net, schedule), fall_back=plan.quantizing.fall_back)
    before, after = (min(each.score for each in found.search.written) for found in (plain, trained))
    if after > before:
        return Int8(trained.directory, trained.search, Qat(schedule.epochs, before, after, True))
    mixed = _searched(work, learned, learned.student, fall_back=plan.quantizing.fall_back)
    return Int8(mixed.directory, mixed.search, Qat(schedule.epochs, before, after, False))


def _searched(work: Compilation, learned: Learned, model: Model, *, fall_back: bool) -> Int8:
    plan = work.plan
    forms = [form_of(artifact) for artifact in _files(work, "int8")]
    means = msgspec.structs.replace(plan.quantizing, fall_back=fall_back)
    allowed = _allowed(work, learned)

    def produce(directory: Path, advance: Advance) -> None:
        by = yardstick(plan, plan.data.validation, model.onnx)
        judged = (plan.data.ranges, by.samples, plan.ends, by.whole)
        request = Request(*judged, allowed, means, plan.budget.max_bytes)
        found = search(model.onnx, directory, forms, request, advance=advance)
        (directory / _SEARCH_FILE).write_bytes(msgspec.json.encode(found))

    told = {
        "onnx": file_digest(model.onnx),
        "ranges": plan.data.ranges.digest(),
        "validation": plan.data.validation.digest(),
        "forms": [form.file for form in forms],
        "means": msgspec.structs.asdict(means),
        "metric": plan.metric_name,
        "allowed": allowed,
        "max_bytes": plan.budget.max_bytes,
    }
    kept = work.stage("quantize", told, produce)
    return Int8(kept, msgspec.json.decode((kept / _SEARCH_FILE).read_bytes(), type=Search))


def _allowed(work: Compilation, learned: Learned) -> float:
    """The share of the metric that quantizing may lose: what learning left of the budget."""
    plan = work.plan
    budget = plan.budget.max_drop_points / 100
    if learned.teacher is None or not len(plan.data.validation):
        return budget
    by = yardstick(plan, plan.data.validation, learned.teacher.onnx)
    student, teacher = (
        by.whole(all_outputs_of(model.onnx, by.samples, plan.ends), by.samples.labels)
        for model in (learned.student, learned.teacher)
    )
    return round(max(budget - (teacher - student), _LEAST_SHARE * budget), 6)


def _trained_for_int8(work: Compilation, net: torch.nn.Module, schedule: Schedule) -> Model:
    plan = work.plan
    assert plan.learning is not None  # it has the schedule
    augment = plan.learning.augment

    def produce(directory: Path, advance: Advance) -> None:
        result = fine_tune(
            net,
            plan.data.train,
            schedule,
            sample=sample_of(plan),
            scheme="u8s8" if any(form_of(each) is CPU for each in _files(work, "int8")) else "s8s8",
            seed=plan.seed,
            augment=augment,
            advance=advance,
        )
        save_net(result.net, directory)

    told = {
        "net": digest_of_net(net),
        "train": plan.data.train.digest(),
        "schedule": msgspec.structs.asdict(schedule),
        "augment": msgspec.structs.asdict(augment),
        "seed": plan.seed,
    }
    return export_net(work, saved_net(work.stage("qat", told, produce)))


def _order(work: Compilation, int8: Int8 | None) -> tuple[ArtifactPlan, ...]:
    """As planned, but an int8 file that breaks the budget comes last: nodes then take a float one."""
    if int8 is None:
        return work.plan.artifacts
    broken = {written.file for written in int8.search.written if not written.holds}
    for name in sorted(broken):
        work.warn(f"{name} loses more than the budget allows whatever was tried; nodes take a float artifact first.")
    return tuple(sorted(work.plan.artifacts, key=lambda each: each.file in broken))


def _parity(work: Compilation, model: Model, files: dict[str, Path]) -> tuple[Parity, ...]:
    """Every artifact beside the torch network, or the ONNX file, that it came from, on real inputs."""
    plan = work.plan
    inputs = first(plan.data.fit if len(plan.data.fit) else plan.data.ranges, _PARITY_ROWS)
    wanted = net_outputs(model.net, inputs, plan.ends) if model.net else all_outputs_of(model.onnx, inputs, plan.ends)
    classifies = plan.ends.output if plan.kind in ("logits", "probabilities") else ""
    found = []
    for artifact in plan.artifacts:
        literal = artifact.runtime != "onnxruntime"
        got = all_outputs_of(files[artifact.file], inputs, plan.ends, literal=literal)
        if artifact.precision == "fp32":
            check_same(artifact.file, got, wanted)
        found.append(parity(artifact.file, got, wanted, classifies=classifies))
    return tuple(found)
