"""The artifacts of a float model: one file for every precision that its targets want, each held against the model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from contracts.manifest import Precision
from model_compiler.compilation import Compilation
from model_compiler.data.samples import first
from model_compiler.export import Parity, check_same, net_outputs, parity
from model_compiler.int8_files import Int8, form_of, int8_files
from model_compiler.learn import Learned, Model
from model_compiler.plan import FP16_FILE, INT4_FILE, ArtifactPlan
from model_compiler.progress import Advance
from model_compiler.quantizing.half import to_fp16
from model_compiler.quantizing.int4 import Int4Result, quantize_int4
from model_compiler.replay import all_outputs_of
from model_compiler.stages import file_digest

_COUNTED_FILE = "counted.json"
_PARITY_ROWS = 64


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
    eights = _files(work, "int8")
    int8 = int8_files(work, learned, eights) if eights else None
    half, int4 = _half(work, model), _int4(work, model)
    places = {"fp32": model.onnx, "fp16": half, "int4": int4}
    files = {}
    for artifact in work.plan.artifacts:
        if artifact.precision == "int8" and int8 is not None:
            files[artifact.file] = int8.place(form_of(artifact).file)
        else:
            place = places[artifact.precision]
            assert place is not None  # its stage ran, since the artifact is planned
            files[artifact.file] = place
    counted = msgspec.json.decode((int4.parent / _COUNTED_FILE).read_bytes(), type=Int4Result) if int4 else None
    return Built(files, _order(work, int8), _parity(work, model, files), int8, counted)


def _files(work: Compilation, precision: Precision) -> tuple[ArtifactPlan, ...]:
    return tuple(artifact for artifact in work.plan.artifacts if artifact.precision == precision)


def _half(work: Compilation, model: Model) -> Path | None:
    """The fp16 file; None where none is planned."""
    if not _files(work, "fp16"):
        return None

    def produce(directory: Path, advance: Advance) -> None:
        to_fp16(model.onnx, directory / FP16_FILE)

    return work.stage("fp16", {"onnx": file_digest(model.onnx)}, produce) / FP16_FILE


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
    """As planned, but an int8 file that breaks the budget comes last: nodes then take a float one."""
    if int8 is None:
        return work.plan.artifacts
    for written in int8.broken:
        lost = 100 * (int8.search.float_score - int8.score(written))
        work.warn(
            f"{written.file} loses {lost:.2f} points on validation samples, and {100 * int8.allowed:.2f} may be lost: "
            "where there is a float artifact, nodes take that first. Allow more, calibrate on samples that are more "
            "like those it will see, or add a learn.qat schedule."
        )
    broken = {written.file for written in int8.broken}
    return tuple(sorted(work.plan.artifacts, key=lambda each: each.file in broken))


def _parity(work: Compilation, model: Model, files: dict[str, Path]) -> tuple[Parity, ...]:
    """Every artifact beside the torch network, or the ONNX file, that it came from, on real inputs."""
    plan = work.plan
    inputs = first(plan.data.some, _PARITY_ROWS)
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
