"""The artifacts of a float model: one file for every precision that its targets want, each held against the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from contracts.manifest import Precision
from model_compiler.compilation import Compilation
from model_compiler.data.samples import first
from model_compiler.errors import about
from model_compiler.export import Parity, check_same, net_outputs, parity
from model_compiler.int8_files import Int8, form_of, int8_files
from model_compiler.learn import Learned, Model
from model_compiler.plan import INT4_FILE, ArtifactPlan
from model_compiler.progress import Advance
from model_compiler.quantizing.half import store_fp16, to_fp16
from model_compiler.quantizing.int4 import Int4Result, quantize_int4
from model_compiler.quantizing.judge import few
from model_compiler.quantizing.observe import Observations, observe
from model_compiler.quantizing.prepare import prepare
from model_compiler.replay import all_outputs_of
from model_compiler.stages import file_digest

_COUNTED_FILE = "counted.json"
_PARITY_ROWS, _RANGED = 64, 64


class Built(msgspec.Struct, frozen=True):
    """`files`: artifact file to where it lies; `order`: the artifacts as nodes should prefer them.

    Not in them: an int8 file for TensorRT that breaks the budget, since nodes would build engines from it.
    """

    files: dict[str, Path]
    order: tuple[ArtifactPlan, ...]
    parity: tuple[Parity, ...]
    int8: Int8 | None = None
    int4: Int4Result | None = None


def build(work: Compilation, learned: Learned) -> Built:
    """Every artifact that the plan names. Raises CompileError where one cannot be made, or lost the model."""
    model = learned.student
    eights = _files(work, "int8")
    int8 = int8_files(work, learned, eights) if eights else None
    with about("bundle.precisions"):
        half, int4 = _half(work, model), _int4(work, model)
    places = {"fp32": model.onnx, "fp16": half, "int4": int4}
    order = _order(work, int8)
    files = {}
    for artifact in order:
        if artifact.precision == "int8" and int8 is not None:
            files[artifact.file] = int8.place(form_of(artifact).file)
        else:
            place = places[artifact.precision]
            assert place is not None  # its stage ran, since the artifact is planned
            files[artifact.file] = place
    counted = msgspec.json.decode((int4.parent / _COUNTED_FILE).read_bytes(), type=Int4Result) if int4 else None
    return Built(files, order, _parity(work, model, order, files), int8, counted)


def _files(work: Compilation, precision: Precision) -> tuple[ArtifactPlan, ...]:
    return tuple(artifact for artifact in work.plan.artifacts if artifact.precision == precision)


def _half(work: Compilation, model: Model) -> Path | None:
    """The fp16 file; None where none is planned."""
    planned, ranges = _files(work, "fp16"), work.plan.data.ranges
    if not planned:
        return None
    artifact = planned[0]

    def produce(directory: Path, advance: Advance) -> None:
        if not artifact.literal:
            store_fp16(model.onnx, directory / artifact.file)
            return
        seen = _seen(work, model) if len(ranges) else None
        to_fp16(model.onnx, directory / artifact.file, seen=seen)

    told = {"onnx": file_digest(model.onnx), "file": artifact.file, "ranges": ranges.digest()}
    return work.stage("fp16", told, produce) / artifact.file


def _seen(work: Compilation, model: Model) -> Observations:
    """How large the values of the model get."""
    with TemporaryDirectory() as name:
        prepared = Path(name) / "prepared.onnx"
        prepare(model.onnx, prepared)
        return observe(prepared, few(work.plan.data.ranges, _RANGED), work.plan.ends)


def _int4(work: Compilation, model: Model) -> Path | None:
    """The int4 file, beside it what was counted; None where none is planned."""
    if not _files(work, "int4"):
        return None
    block = work.plan.quantizing.int4_block

    def produce(directory: Path, advance: Advance) -> None:
        result = quantize_int4(model.onnx, directory / INT4_FILE, block=block)
        (directory / _COUNTED_FILE).write_bytes(msgspec.json.encode(result))

    return work.stage("int4", {"onnx": file_digest(model.onnx), "block": block}, produce) / INT4_FILE


def _order(work: Compilation, int8: Int8 | None) -> tuple[ArtifactPlan, ...]:
    """As planned, but an int8 file that breaks the budget comes last, and one for TensorRT not at all, where there are
    others: nodes then take a float one."""
    if int8 is None:
        return work.plan.artifacts
    broken = {written.file for written in int8.broken}
    kept = tuple(each for each in work.plan.artifacts if not (each.file in broken and each.runtime == "tensorrt"))
    order = tuple(sorted(kept or work.plan.artifacts, key=lambda each: each.file in broken))
    for written in int8.broken:
        left = "nodes take a float artifact first" if any(each.file == written.file for each in order) else "left out"
        lost = 100 * (int8.search.float_score - int8.score(written))
        work.warn(
            f"{written.file} loses {lost:.2f} points on validation samples, and {100 * int8.allowed:.2f} may be lost: "
            f"{left}. Allow more, calibrate on samples that are more like those it will see, or add a learn.qat "
            "schedule."
        )
    return order


def _parity(
    work: Compilation, model: Model, order: Sequence[ArtifactPlan], files: Mapping[str, Path]
) -> tuple[Parity, ...]:
    """Every artifact beside the torch network, or the ONNX file, that it came from, on real inputs."""
    plan = work.plan
    inputs = first(plan.data.some, _PARITY_ROWS)
    wanted = net_outputs(model.net, inputs, plan.ends) if model.net else all_outputs_of(model.onnx, inputs, plan.ends)
    classifies = plan.ends.output if plan.kind in ("logits", "probabilities") else ""
    found = []
    for artifact in order:
        got = all_outputs_of(files[artifact.file], inputs, plan.ends, literal=artifact.literal)
        if artifact.precision == "fp32":
            check_same(artifact.file, got, wanted)
        found.append(parity(artifact.file, got, wanted, classifies=classifies))
    return tuple(found)
