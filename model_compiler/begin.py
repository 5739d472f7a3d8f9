"""The models of a plan before they learn: built or imported, and asked about a few samples."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from model_compiler.cloud import cloud_model
from model_compiler.compilation import Compilation
from model_compiler.data.samples import Floats, first
from model_compiler.errors import CompileError, about
from model_compiler.export import export_onnx, import_onnx, net_outputs
from model_compiler.imports import called
from model_compiler.networks import build, save_net, saved_net
from model_compiler.onnx_ends import fitted
from model_compiler.plan import Net, OnnxFile, Plan, Source
from model_compiler.probe import check_answers
from model_compiler.progress import Advance
from model_compiler.replay import all_outputs_of
from model_compiler.stages import file_digest

if TYPE_CHECKING:
    import torch

ONNX_FILE = "model.onnx"
_SAMPLE_ROWS = 2
"""Not 1: torch.export would make a batch of 1 a constant."""


class Begun(msgspec.Struct, frozen=True):
    """A model before it learns: a network with its first or its given weights, or a finished ONNX file.

    `width`: how many values one row of its answering output has.
    """

    source: Source
    width: int
    net: torch.nn.Module | None = None
    onnx: Path | None = None

    @property
    def learns(self) -> bool:
        return isinstance(self.source, Net) and self.source.weights is None

    @property
    def code(self) -> str:
        return self.source.code if isinstance(self.source, Net) else ""


def begin(work: Compilation, source: Source, role: str = "") -> Begun:
    """Asked about a few samples, so that what does not fit is told before hours are spent. Raises CompileError.

    `role`: teacher or student, for the key of what is refused.
    """
    plan, sample = work.plan, sample_of(work.plan)
    net = onnx = None
    if isinstance(source, OnnxFile):
        onnx = _imported(work, source.path)
        answers = all_outputs_of(onnx, sample, fitted(plan.ends, onnx))
    else:
        net = build(source, plan.seed, sample, role=role)
        answers = called(f"{source.name} on inputs {list(sample.shape)}", net_outputs, net, sample, plan.ends)
    check_answers(plan, source.name, answers, len(sample))
    return Begun(source, answers[plan.ends.output][0].size, net, onnx)


class Models(msgspec.Struct, frozen=True):
    """Those of a plan, where it names them."""

    teacher: Begun | None
    student: Begun | None

    @property
    def named(self) -> tuple[tuple[str, Begun], ...]:
        """Each with what it is to the plan."""
        both = (("teacher", self.teacher), ("student", self.student))
        return tuple((role, each) for role, each in both if each is not None)


def begin_models(work: Compilation) -> Models:
    """Teacher and student of the plan. Where one of them learns, all that can be told without training is told here:
    that they answer alike, and that what they become can be kept and exported. Raises CompileError."""
    models = Models(_begun(work, work.plan.teacher, "teacher"), _begun(work, work.plan.student, "student"))
    check_alike(work, models)
    if any(each.learns for _, each in models.named):
        for role, each in models.named:
            with about(f"{role}.build"):
                _rehearse(work, role, each)
    return models


def _begun(work: Compilation, source: Source | None, role: str) -> Begun | None:
    if source is None:
        return None
    with about(f"{role}.onnx" if isinstance(source, OnnxFile) else f"{role}.build"):
        return begin(work, source, role)


def check_alike(work: Compilation, models: Models) -> None:
    """Teacher, student and cloud bundle must answer with as many values. Raises CompileError."""
    widths = [(f"{role} {each.source.name}", each.width) for role, each in models.named]
    if (cloud := cloud_model(work)) is not None and work.plan.cloud is not None:
        ends, sample = fitted(work.plan.ends, cloud), sample_of(work.plan)
        width = all_outputs_of(cloud, sample, ends)[ends.output][0].size
        widths.append((f"cloud bundle {work.plan.cloud.manifest.reference}", width))
    if len({width for _, width in widths}) > 1:
        told = ", ".join(f"{name}: {width}" for name, width in widths)
        raise CompileError(f"The models do not answer alike ({told} values a row). Give all of them the same classes.")


def _rehearse(work: Compilation, role: str, model: Begun) -> None:
    """What comes after training, on what there is before it: a network is kept, read again, exported and checked."""
    if model.net is None:
        return
    name = f"{role} {model.source.name}"
    with TemporaryDirectory() as place:
        directory = Path(place)
        try:
            save_net(model.net, directory)
            net = called(f"reading {name}", saved_net, directory)
            called(f"exporting {name}", export_onnx, net, sample_of(work.plan), directory / ONNX_FILE, work.plan.ends)
        except CompileError as error:
            raise CompileError(f"{name}: {error}") from error


def sample_of(plan: Plan) -> Floats:
    """A few real inputs."""
    return first(plan.data.some, _SAMPLE_ROWS)


def _imported(work: Compilation, path: Path) -> Path:
    ends = work.plan.ends

    def produce(directory: Path, advance: Advance) -> None:
        import_onnx(path, directory / ONNX_FILE, ends, sample_of(work.plan))

    return work.stage("import", {"onnx": file_digest(path), "ends": [ends.input, *ends.outputs]}, produce) / ONNX_FILE
