"""What a recipe may say: the tables of the TOML file, and their keys."""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.manifest import PostprocessKind, Precision, Preprocess, Task
from model_compiler.confidence import Promise
from model_compiler.learning.augment import PLAIN, Augment
from model_compiler.learning.train import Schedule
from model_compiler.plan import Budget, Learning, Prune, Quantizing


class BundleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[bundle]`: what comes out. `metric` is an import path; the task's own metric otherwise."""

    name: str
    version: str
    model: str
    task: Task = "classification"
    targets: tuple[str, ...] = ("cpu-x86", "cpu-arm")
    precisions: tuple[Precision, ...] = ("int8", "fp32")
    labels: tuple[str, ...] = ()
    metric: str = ""
    max_batch: int = 32
    seed: int = 0


class SourceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[teacher]` or `[student]`: `build` (an import path, called with `arguments`) with optional safetensors
    `weights`, or an `onnx` file. `schedule` and `augment` train a teacher that comes without weights."""

    build: str = ""
    arguments: dict[str, Any] = {}
    weights: str = ""
    onnx: str = ""
    schedule: Schedule | None = None
    augment: Augment = PLAIN


class CloudTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[cloud]`: what the edge bundle is certified against: the teacher packed as `name`@`version`, or the packed
    bundle in the directory `bundle`."""

    name: str = ""
    version: str = "1"
    bundle: str = ""


class SplitTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many samples of `[data] folder` each part gets: counts from 1 up, or shares below 1. The rest trains."""

    calibration: float = 512
    validation: float = 0.05
    fit: float = 0.05
    threshold: float = 0.10
    test: float = 0.10


class DataTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[data]`: a `folder` that is split, and parts that come from elsewhere: a directory, or an import path."""

    folder: str = ""
    split: SplitTable = SplitTable()
    train: str = ""
    calibration: str = ""
    validation: str = ""
    fit: str = ""
    threshold: str = ""
    test: str = ""
    seed: int = 0


class PostprocessTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[postprocess]`: the names of a torch network's tensors, and what the first output holds; by the task where they
    are not given."""

    kind: PostprocessKind | None = None
    input: str = "image"
    outputs: tuple[str, ...] = ()


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; docs/compile.md explains every key."""

    bundle: BundleTable
    data: DataTable = DataTable()
    teacher: SourceTable | None = None
    student: SourceTable | None = None
    cloud: CloudTable | None = None
    prune: Prune | None = None
    learn: Learning | None = None
    quantize: Quantizing = Quantizing()
    budget: Budget = Budget()
    promise: Promise = Promise()
    preprocess: Preprocess | None = None
    postprocess: PostprocessTable = PostprocessTable()

    @property
    def kind(self) -> PostprocessKind:
        return self.postprocess.kind or _OUTPUTS[self.bundle.task][0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that a torch network's outputs get; an ONNX file has its own."""
        return self.postprocess.outputs or _OUTPUTS[self.bundle.task][1]


_OUTPUTS: dict[Task, tuple[PostprocessKind, tuple[str, ...]]] = {
    "classification": ("logits", ("logits",)),
    "embedding": ("vector", ("embedding",)),
    "detection": ("tensors", ("detections",)),
}
