"""The best int8 files without a layer in float: every calibration is tried, and judged on validation samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from model_compiler.data.samples import Samples, first
from model_compiler.errors import CompileError
from model_compiler.metrics import Metric
from model_compiler.plan import CPU_INT8_FILE, TENSORRT_INT8_FILE, Quantizing
from model_compiler.progress import Advance, part_of, unwatched
from model_compiler.quantizing import ranges
from model_compiler.quantizing.correct_bias import correct_bias
from model_compiler.quantizing.diagnose import PlaceNoise, Quantize, place_noise
from model_compiler.quantizing.equalize import Equalized, equalize
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.judge import few
from model_compiler.quantizing.observe import Observations, observe
from model_compiler.quantizing.prepare import prepare
from model_compiler.quantizing.ranges import Method, Table, table_of
from model_compiler.quantizing.tensorrt_lint import check_tensorrt
from model_compiler.replay import Ends, all_outputs_of

_PREPARED_FILE, _EQUALIZED_FILE = "prepared.onnx", "equalized.onnx"
BASE_FILE, _TABLE_FILE, _OBSERVED_FILE = "base.onnx", "table.json", "observed.npz"
_BIAS_ACTIVATIONS, _FEWEST, _MOST = 2e8, 16, 128


class Form(msgspec.Struct, frozen=True):
    """One int8 file: how it is written, and whether its answers are computed literally."""

    file: str
    quantize: Quantize
    literal: bool = False


CPU = Form(CPU_INT8_FILE, quantize_cpu)
TENSORRT = Form(TENSORRT_INT8_FILE, quantize_tensorrt, literal=True)


class Tried(msgspec.Struct, frozen=True):
    """One calibration, and the metric of the int8 file it gives."""

    method: Method
    equalized: bool
    score: float


class Written(msgspec.Struct, frozen=True):
    """One int8 file: its metric as first written, and with `corrected` of its biases moved."""

    file: str
    first_score: float
    score: float
    corrected: int


class Search(msgspec.Struct, frozen=True):
    """`tried`: the best first. `float_score`: the metric of the float form on the same samples; `scored_by`: its name.

    `tensors`: the activations by name, in the order of the graph. `noise`: of the first form.
    """

    float_score: float
    tried: tuple[Tried, ...]
    equalized: tuple[Equalized, ...]
    written: tuple[Written, ...]
    calibration_rows: int
    tensors: tuple[str, ...]
    scored_by: str = ""
    noise: tuple[PlaceNoise, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """`calibration` gives the ranges, `validation` judges by `metric`, which is called `scored_by`."""

    calibration: Samples
    validation: Samples
    ends: Ends
    metric: Metric
    scored_by: str = ""

    def score(self, artifact: Path, form: Form) -> float:
        outputs = all_outputs_of(artifact, self.validation, self.ends, literal=form.literal)
        return self.metric(outputs, self.validation.labels)


class Calibrated(msgspec.Struct, frozen=True):
    """The prepared float model that int8 files are made of, what its activations were seen to be, and their ranges."""

    base: Path
    observations: Observations
    table: Table

    def save(self, directory: Path) -> None:
        (directory / BASE_FILE).write_bytes(self.base.read_bytes())
        (directory / _TABLE_FILE).write_bytes(ranges.encode(self.table))
        self.observations.save(directory / _OBSERVED_FILE)

    @classmethod
    def load(cls, directory: Path) -> Calibrated:
        table = ranges.decode((directory / _TABLE_FILE).read_bytes())
        return cls(directory / BASE_FILE, Observations.load(directory / _OBSERVED_FILE), table)


def search(
    fp32: Path,
    out: Path,
    forms: Sequence[Form],
    request: Request,
    means: Quantizing,
    *,
    advance: Advance = unwatched,
) -> Search:
    """Writes every one of `forms` into `out`, all from one calibration, which the first of them chose, and keeps that
    beside them.

    Raises CompileError where there is nothing to calibrate or to judge by, and where a file cannot be quantized.
    """
    if not len(request.calibration) or not len(request.validation):
        raise CompileError(
            "int8 needs calibration and validation samples. Name them in [data], or take int8 out of the precisions."
        )
    with TemporaryDirectory() as work:
        bases, equalized = _bases(fp32, Path(work), request, means)
        tried, best = _calibrate(bases, Path(work), forms[0], request, means, part_of(advance, 0.0, 0.6))
        best.save(out)
        float_score = request.score(bases[0], forms[0])
        written = []
        for number, form in enumerate(forms):
            start, end = (0.6 + 0.4 * each / len(forms) for each in (number, number + 1))
            written.append(_write(form, best, out, request, means, part_of(advance, start, end)))
        noise = _noise(forms[0], best, out, request)
    names = tuple(best.observations.tensors)
    return Search(float_score, tried, equalized, tuple(written), best.table.rows, names, request.scored_by, noise)


def _noise(form: Form, best: Calibrated, out: Path, request: Request) -> tuple[PlaceNoise, ...]:
    files = (best.base, out / form.file)
    return place_noise(*files, best.observations, request.validation, request.ends, literal=form.literal)


def corrected(form: Form, best: Calibrated, path: Path, request: Request, score: float, advance: Advance) -> Written:
    """Moves the biases of the file at `path`, which scores `score`, where that does not cost anything."""
    moved = path.with_suffix(".corrected")
    numbers = sum(int(seen.histogram.sum()) for seen in best.observations.tensors.values())
    rows = int(np.clip(_BIAS_ACTIVATIONS * best.observations.rows / numbers, _FEWEST, _MOST))
    samples = few(request.calibration, rows)
    try:
        count = correct_bias(best.base, path, moved, samples, request.ends, literal=form.literal, advance=advance)
        after = request.score(moved, form)
        if after < score:
            return Written(form.file, score, score, 0)
        moved.replace(path)
        return Written(form.file, score, after, count)
    finally:
        moved.unlink(missing_ok=True)


def _bases(
    fp32: Path, work: Path, request: Request, means: Quantizing
) -> tuple[tuple[Path, ...], tuple[Equalized, ...]]:
    prepared, equal = work / _PREPARED_FILE, work / _EQUALIZED_FILE
    prepare(fp32, prepared)
    some = first(request.calibration, request.ends.batch or 2)
    pairs = equalize(prepared, equal, inputs=some) if means.equalize else []
    return ((prepared, equal) if pairs else (prepared,)), tuple(pairs)


def _calibrate(
    bases: Sequence[Path], work: Path, form: Form, request: Request, means: Quantizing, advance: Advance
) -> tuple[tuple[Tried, ...], Calibrated]:
    """Every method on every base; of equal scores the one named first wins."""
    tried: list[tuple[Tried, Calibrated]] = []
    for number, base in enumerate(bases):
        told = part_of(advance, number / len(bases), (number + 1) / len(bases))
        observations = observe(base, request.calibration, request.ends, advance=part_of(told, 0.0, 0.6))
        for done, method in enumerate(means.methods, 1):
            calibrated = Calibrated(base, observations, table_of(observations, method))
            form.quantize(base, work / form.file, calibrated.table)
            score = request.score(work / form.file, form)
            tried.append((Tried(method, number > 0, score), calibrated))
            told(0.6 + 0.4 * done / len(means.methods))
    tried.sort(key=lambda each: -each[0].score)
    return tuple(each for each, _ in tried), tried[0][1]


def _write(form: Form, best: Calibrated, out: Path, request: Request, means: Quantizing, advance: Advance) -> Written:
    path = out / form.file
    form.quantize(best.base, path, best.table)
    score = request.score(path, form)
    written = Written(form.file, score, score, 0)
    if means.correct_bias:
        written = corrected(form, best, path, request, score, advance)
    if form.literal:
        check_tensorrt(path)
    advance(1.0)
    return written
