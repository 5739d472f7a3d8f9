"""The best int8 files that the means of a plan give: every calibration is tried, judged on validation samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from model_compiler.data.samples import Samples
from model_compiler.errors import CompileError
from model_compiler.metrics import Metric
from model_compiler.plan import Quantizing
from model_compiler.progress import Advance, part_of, unwatched
from model_compiler.quantizing.correct_bias import correct_bias
from model_compiler.quantizing.diagnose import Diagnosis, Quantize, diagnose
from model_compiler.quantizing.equalize import Equalized, equalize
from model_compiler.quantizing.fallback import Budget as MixBudget
from model_compiler.quantizing.fallback import Fallback, fall_back
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.observe import Observations, observe
from model_compiler.quantizing.placement import Keep
from model_compiler.quantizing.prepare import prepare
from model_compiler.quantizing.ranges import Method, Table, table_of
from model_compiler.quantizing.tensorrt_lint import check_tensorrt
from model_compiler.replay import Ends, all_outputs_of

PREPARED_FILE, EQUALIZED_FILE = "prepared.onnx", "equalized.onnx"


NOTHING_KEPT: Mapping[str, Keep] = {}


class Form(msgspec.Struct, frozen=True):
    """One int8 file: how it is written, and whether its answers are computed literally."""

    file: str
    quantize: Quantize
    literal: bool = False


CPU = Form("cpu.u8s8.onnx", quantize_cpu)
TENSORRT = Form("trt.s8.onnx", quantize_tensorrt, literal=True)


class Tried(msgspec.Struct, frozen=True):
    """One calibration, and the metric of the int8 file it gives."""

    method: Method
    equalized: bool
    score: float


class Written(msgspec.Struct, frozen=True):
    """One int8 file: its metric as first written, with biases corrected (`corrected` of them), and in the end."""

    file: str
    first_score: float
    corrected_score: float
    score: float
    corrected: int
    holds: bool
    diagnosis: Diagnosis | None = None
    fallback: Fallback | None = None


class Search(msgspec.Struct, frozen=True):
    """`tried`: the best first. `float_score`: the metric of the float form on the same samples.

    `tensors`: the activations by name, in the order of the graph.
    """

    float_score: float
    tried: tuple[Tried, ...]
    equalized: tuple[Equalized, ...]
    written: tuple[Written, ...]
    calibration_rows: int
    tensors: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return all(each.holds for each in self.written)


class Request(msgspec.Struct, frozen=True):
    """`ranges` calibrate, `validation` judges by `metric`. `allowed`: the share of the metric that may be lost."""

    ranges: Samples
    validation: Samples
    ends: Ends
    metric: Metric
    allowed: float
    means: Quantizing
    max_bytes: int | None = None

    def score(self, artifact: Path, form: Form) -> float:
        outputs = all_outputs_of(artifact, self.validation, self.ends, literal=form.literal)
        return self.metric(outputs, self.validation.labels)


class _Calibrated(msgspec.Struct, frozen=True):
    base: Path
    observations: Observations
    table: Table


def search(fp32: Path, out: Path, forms: Sequence[Form], request: Request, *, advance: Advance = unwatched) -> Search:
    """Writes every one of `forms` into `out`, all from one calibration table, chosen by what the first of them scores.

    Raises CompileError where there is nothing to calibrate or to judge by, and where a file cannot be quantized.
    """
    if not len(request.ranges) or not len(request.validation):
        raise CompileError(
            "int8 needs calibration and validation samples. Name them in [data], or take int8 out of the precisions."
        )
    with TemporaryDirectory() as work:
        bases, equalized = _bases(fp32, Path(work), request.means)
        tried, best = _calibrate(bases, Path(work), forms[0], request, part_of(advance, 0.0, 0.5))
        float_score = request.score(bases[0], forms[0])
        written = []
        for number, form in enumerate(forms):
            share = 0.5 / len(forms)
            told = part_of(advance, 0.5 + number * share, 0.5 + (number + 1) * share)
            written.append(_write(form, best, out, request, float_score, told))
    return Search(float_score, tried, equalized, tuple(written), best.table.rows, tuple(best.observations.tensors))


def _bases(fp32: Path, work: Path, means: Quantizing) -> tuple[tuple[Path, ...], tuple[Equalized, ...]]:
    prepared, equal = work / PREPARED_FILE, work / EQUALIZED_FILE
    prepare(fp32, prepared)
    pairs = equalize(prepared, equal) if means.equalize else []
    return ((prepared, equal) if pairs else (prepared,)), tuple(pairs)


def _calibrate(
    bases: Sequence[Path], work: Path, form: Form, request: Request, advance: Advance
) -> tuple[tuple[Tried, ...], _Calibrated]:
    """Every method on every base; of equal scores the one named first wins."""
    tried: list[tuple[Tried, _Calibrated]] = []
    for number, base in enumerate(bases):
        told = part_of(advance, number / len(bases), (number + 0.5) / len(bases))
        observations = observe(base, request.ranges, request.ends, advance=told)
        for method in request.means.methods:
            calibrated = _Calibrated(base, observations, table_of(observations, method))
            form.quantize(base, work / form.file, calibrated.table)
            score = request.score(work / form.file, form)
            tried.append((Tried(method, number > 0, score), calibrated))
        advance((number + 1) / len(bases))
    tried.sort(key=lambda each: -each[0].score)
    return tuple(each for each, _ in tried), tried[0][1]


def _write(form: Form, best: _Calibrated, out: Path, request: Request, float_score: float, advance: Advance) -> Written:
    """Quantizes, corrects biases where that helps, and keeps layers in float where the budget needs it."""
    path = out / form.file
    form.quantize(best.base, path, best.table)
    first_score = score = request.score(path, form)
    corrected = 0
    if request.means.correct_bias:
        corrected, score = _corrected(best, path, form, request, first_score)
    written = Written(form.file, first_score, score, score, corrected, float_score - score <= request.allowed)
    if not written.holds and request.means.fall_back:
        written = _mixed(form, best, path, request, written, advance)
    if form.literal:
        check_tensorrt(path)
    advance(1.0)
    return written


def _mixed(form: Form, best: _Calibrated, path: Path, request: Request, before: Written, advance: Advance) -> Written:
    """The file again with the fewest layers in float that the budget needs."""
    quantize = form.quantize if not before.corrected else _correcting(form, request)
    judged = (request.validation, request.ends, request.metric)
    told = part_of(advance, 0.1, 0.5)
    diagnosis = diagnose(
        best.base, path, best.observations, best.table, *judged, quantize=quantize, literal=form.literal, advance=told
    )
    fallback = fall_back(
        diagnosis,
        best.base,
        path,
        best.table,
        *judged,
        MixBudget(max_drop=100 * request.allowed, max_bytes=request.max_bytes),
        quantize=quantize,
        literal=form.literal,
        advance=part_of(advance, 0.5, 1.0),
    )
    return msgspec.structs.replace(
        before, score=fallback.score, holds=fallback.holds, diagnosis=diagnosis, fallback=fallback
    )


def _correcting(form: Form, request: Request) -> Quantize:
    """The form's way of quantizing, with biases corrected afterwards."""

    def quantize(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = NOTHING_KEPT) -> None:
        form.quantize(fp32, out, table, keep=keep)
        moved = out.with_suffix(".corrected")
        if correct_bias(fp32, out, moved, request.ranges, request.ends):
            moved.replace(out)
        moved.unlink(missing_ok=True)

    return quantize


def _corrected(best: _Calibrated, path: Path, form: Form, request: Request, score: float) -> tuple[int, float]:
    """How many biases were moved, and the score then; none where it does not help."""
    moved = path.with_suffix(".corrected")
    try:
        count = correct_bias(best.base, path, moved, request.ranges, request.ends)
        after = request.score(moved, form) if count else score
        if not count or after < score:
            return 0, score
        moved.replace(path)
        return count, after
    finally:
        moved.unlink(missing_ok=True)
