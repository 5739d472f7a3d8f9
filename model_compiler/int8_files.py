"""The int8 artifacts of a float model: by calibration alone where that keeps the budget, else by more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from model_compiler.compilation import Compilation
from model_compiler.learn import Learned, Model
from model_compiler.learning.qat import Scheme
from model_compiler.machine import machine
from model_compiler.onnx_ends import fitted
from model_compiler.plan import ArtifactPlan
from model_compiler.progress import Advance
from model_compiler.quantizing.fallback import Budget
from model_compiler.quantizing.mixed import Mixed, mix
from model_compiler.quantizing.search import BASE_FILE, CPU, TENSORRT, Form, Request, Search, Written, search
from model_compiler.replay import all_outputs_of
from model_compiler.retrain import can_retrain, retrain
from model_compiler.stages import file_digest
from model_compiler.yardstick import rounding_yardstick, yardstick

_SEARCH_FILE, _MIXED_FILE, _ALLOWED_FILE = "search.json", "mixed.json", "allowed.json"
_LEAST_SHARE = 0.25
"""Of the budget, which quantizing may always use: a student at its limit is not kept in float for that alone."""


class Qat(msgspec.Struct, frozen=True):
    """The least of the int8 files' scores on validation samples without and with quantization-aware training."""

    epochs: int
    before: float
    after: float
    kept: bool


class Int8(msgspec.Struct, frozen=True):
    """Where the int8 files lie, and how they came about. `allowed`: the share of the metric that they may lose.

    `float_score`: of the student before any quantization-aware training, on validation samples.
    """

    directory: Path
    search: Search
    allowed: float
    float_score: float
    mixed: dict[str, Mixed] = {}
    places: dict[str, Path] = {}
    qat: Qat | None = None

    def place(self, file: str) -> Path:
        return self.places.get(file, self.directory / file)

    def score(self, written: Written) -> float:
        """On validation samples, in the end."""
        mixed = self.mixed.get(written.file)
        return mixed.score if mixed is not None else written.score

    @property
    def broken(self) -> tuple[Written, ...]:
        """The files that lose more than is allowed."""
        floor = self.float_score - self.allowed - 1e-9
        return tuple(each for each in self.search.written if self.score(each) < floor)


def int8_files(work: Compilation, learned: Learned, artifacts: tuple[ArtifactPlan, ...]) -> Int8:
    """The files of `artifacts`. Training comes first where the plan has a schedule for it, then layers in float."""
    plan, learning, student = work.plan, work.plan.learning, learned.student
    forms = tuple(form_of(artifact) for artifact in artifacts)
    found = _searched(work, learned, student, forms)
    schedule = learning.qat if learning is not None else None
    if found.broken and schedule is not None and can_retrain(work, learned):
        # What bears the coarser rounding, without a zero point, bears the finer one.
        scheme: Scheme = "s8s8" if TENSORRT in forms else "u8s8"
        trained = _searched(work, learned, retrain(work, learned, schedule, scheme), forms)
        before, after = (min(each.score for each in some.search.written) for some in (found, trained))
        better = trained if after > before else found
        qat = Qat(schedule.epochs, before, after, after > before)
        found = msgspec.structs.replace(better, qat=qat, float_score=found.float_score)
    return _mixed(work, learned, found, forms) if found.broken and plan.quantizing.fall_back else found


def form_of(artifact: ArtifactPlan) -> Form:
    return CPU if artifact.runtime == "onnxruntime" else TENSORRT


def _searched(work: Compilation, learned: Learned, model: Model, forms: tuple[Form, ...]) -> Int8:
    """By calibration alone."""
    means = work.plan.quantizing

    def produce(directory: Path, advance: Advance) -> None:
        found = search(model.onnx, directory, forms, _request(work, learned, model.onnx), means, advance=advance)
        (directory / _SEARCH_FILE).write_bytes(msgspec.json.encode(found))

    told = {
        **_judged(work, learned),
        "onnx": file_digest(model.onnx),
        "ranges": work.plan.data.ranges.digest(),
        "forms": [form.file for form in forms],
        "means": [means.methods, means.equalize, means.correct_bias],
        "noise": "told",
    }
    kept = work.stage("quantize", told, produce)
    found = msgspec.json.decode((kept / _SEARCH_FILE).read_bytes(), type=Search)
    return Int8(kept, found, _allowed(work, learned), found.float_score)


def _mixed(work: Compilation, learned: Learned, found: Int8, forms: tuple[Form, ...]) -> Int8:
    """With layers in float in the files that need it."""
    trained = found.search.float_score - found.float_score
    budget = Budget(max_drop=100 * max(found.allowed + trained, 0.0), max_bytes=work.plan.budget.max_bytes)
    broken = {written.file: written for written in found.broken}
    mixed, places = {}, {}
    for form in (form for form in forms if form.file in broken):
        kept = _mix(work, learned, found.directory, form, broken[form.file], budget)
        mixed[form.file] = msgspec.json.decode((kept / _MIXED_FILE).read_bytes(), type=Mixed)
        places[form.file] = kept / form.file
    return msgspec.structs.replace(found, mixed=mixed, places=places)


def _mix(work: Compilation, learned: Learned, kept: Path, form: Form, written: Written, budget: Budget) -> Path:
    def produce(directory: Path, advance: Advance) -> None:
        request = _request(work, learned, kept / BASE_FILE)
        result = mix(kept, directory, form, written, request, budget, advance=advance)
        (directory / _MIXED_FILE).write_bytes(msgspec.json.encode(result))

    told = {
        **_judged(work, learned),
        "quantized": kept.name,
        "int8": file_digest(kept / form.file),
        "budget": msgspec.structs.asdict(budget),
        "machine": machine(),  # costs are told in milliseconds
    }
    return work.stage("mix", told, produce)


def _request(work: Compilation, learned: Learned, float_form: Path) -> Request:
    plan = work.plan
    by = rounding_yardstick(plan, plan.data.validation, learned.reference.onnx, float_form)
    return Request(plan.data.ranges, by.samples, plan.ends, by.whole, by.name)


def _judged(work: Compilation, learned: Learned) -> dict[str, Any]:
    """What every score depends on beside the file."""
    plan, validation = work.plan, work.plan.data.validation.digest()
    judging = {"task": plan.task, "kind": plan.kind, "reference": file_digest(learned.reference.onnx)}
    return {"validation": validation, **judging, "hits": "expected", **plan.judged_by}


def _allowed(work: Compilation, learned: Learned) -> float:
    """The share of the metric that quantizing may lose: what learning left of the budget."""
    plan, teacher = work.plan, learned.teacher
    budget = plan.budget.max_drop_points / 100
    if teacher is None or not len(plan.data.validation):
        return budget
    models = (learned.student.onnx, teacher.onnx)

    def produce(directory: Path, advance: Advance) -> None:
        by = yardstick(plan, plan.data.validation, teacher.onnx)
        outputs = (all_outputs_of(each, by.samples, fitted(plan.ends, each)) for each in models)
        ours, theirs = (by.whole(each, by.samples.labels) for each in outputs)
        left = round(max(budget - (theirs - ours), _LEAST_SHARE * budget), 6)
        (directory / _ALLOWED_FILE).write_bytes(msgspec.json.encode(left))

    told = {**_judged(work, learned), "student": file_digest(learned.student.onnx), "budget": budget}
    return msgspec.json.decode((work.stage("compare", told, produce) / _ALLOWED_FILE).read_bytes(), type=float)
