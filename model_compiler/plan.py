"""What to compile: everything that decides a bundle's bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from contracts.boards import BOARDS
from contracts.manifest import Detector, DetectorKind, PostprocessKind, Precision, Preprocess, Runtime, Task, Tier
from model_compiler.confidence import Promise
from model_compiler.data.samples import Data
from model_compiler.detectors.pairs import Picture
from model_compiler.learning.augment import PLAIN, Augment
from model_compiler.learning.prune import Method as PruneMethod
from model_compiler.learning.train import Schedule
from model_compiler.learning.ways import Way
from model_compiler.metrics import Metric
from model_compiler.pack import Packed
from model_compiler.quantizing.ranges import Method
from model_compiler.replay import Ends

if TYPE_CHECKING:
    import torch


class Training(msgspec.Struct, frozen=True):
    """How a network learns from the labels alone."""

    schedule: Schedule
    augment: Augment = PLAIN


class Net(msgspec.Struct, frozen=True):
    """A torch network: `name` is for messages, `build` makes it.

    safetensors `weights` fill it; without them it is trained, by `training` where it learns from the labels. `code`: a
    digest of the text that defines it, so that what it learned is learned again when that changes; none for networks
    that do not change.
    """

    name: str
    build: Callable[[], torch.nn.Module]
    weights: Path | None = None
    training: Training | None = None
    code: str = ""


class OnnxFile(msgspec.Struct, frozen=True):
    """A finished model; it is quantized and checked, not trained."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)


Source = Net | OnnxFile


class Prune(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The student is the teacher without a `share` of its channels (or, `unstructured`, of its weights)."""

    method: PruneMethod
    share: float


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the student is trained. With several `ways`, each is tried for `trial` and the best on validation is kept.

    `qat` fine-tunes for int8, and only when no other means keeps the budget.
    """

    schedule: Schedule
    augment: Augment = PLAIN
    ways: tuple[Way, ...] = ("kd",)
    trial: Schedule | None = None
    qat: Schedule | None = None


class Quantizing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which means int8 may use; all are tried on validation samples, and the best is kept.

    `fall_back`: layers that int8 hurts too much for the budget stay in fp16 or fp32.
    """

    methods: tuple[Method, ...] = ("minmax", "entropy", "percentile")
    equalize: bool = True
    correct_bias: bool = True
    fall_back: bool = True
    int4_block: int = 32


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be lost against the teacher, or against the model's own fp32 form where there is no teacher.

    `max_drop_points`: points of the task's metric. The others are of one artifact on this machine's CPU: `min_speed_up`
    times the teacher's speed, `max_latency_ms` at batch 1 on one thread, `max_bytes` of the file.
    """

    max_drop_points: float = 0.5
    min_speed_up: float | None = None
    max_latency_ms: float | None = None
    max_bytes: int | None = None


class ArtifactPlan(msgspec.Struct, frozen=True):
    """One file to build; a node takes the first of a bundle that names its target and that its runtime runs."""

    file: str
    precision: Precision
    targets: tuple[str, ...]
    runtime: Runtime = "onnxruntime"

    @property
    def literal(self) -> bool:
        """Whether it is written for GPUs' arithmetic: checked here operator by operator, and not timed."""
        return self.runtime == "tensorrt" or self.file == FP16_FILE


class Plan(msgspec.Struct, frozen=True):
    """A model to compile into one bundle.

    `student` is what becomes artifacts; None means the teacher, or with `prune` what is left of it. A student that is a
    Net without weights is trained: from the teacher's answers where there is a teacher, from the labels otherwise.
    With a `cloud` bundle it is certified against that. `detector` is the head that makes boxes of a detector's outputs;
    both it and the cloud's are asked about the `pictures`.
    `how` says in words what is measured on what. `metric` is called `metric_name`, and `metric_code` is a digest of its
    text.
    """

    name: str
    version: str
    model: str
    task: Task
    tier: Tier
    data: Data
    artifacts: tuple[ArtifactPlan, ...]
    how: str
    student: Source | None = None
    teacher: Source | None = None
    prune: Prune | None = None
    learning: Learning | None = None
    quantizing: Quantizing = Quantizing()
    budget: Budget = Budget()
    metric: Metric | None = None
    metric_name: str = ""
    metric_code: str = ""
    cloud: Packed | None = None
    promise: Promise = Promise()
    preprocess: Preprocess | None = None
    kind: PostprocessKind | DetectorKind = "logits"
    detector: Detector | None = None
    pictures: tuple[Picture, ...] = ()
    labels: tuple[str, ...] = ()
    ends: Ends = Ends("image", ("logits",))
    max_batch: int = 32
    seed: int = 0

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def is_compared(self) -> bool:
        """Whether its artifacts are held against another model's outputs, and not against those of their own float
        form: two detectors see pictures of their own sizes, and answer in their own ways."""
        return self.teacher is not None or (self.cloud is not None and self.detector is None)

    @property
    def judged_by(self) -> dict[str, str]:
        """What tells the metric from every other, for the inputs of stages."""
        told = {"metric": self.metric_name}
        return {**told, "metric code": self.metric_code} if self.metric_code else told


_EXACT: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")


def most_exact(artifacts: Sequence[ArtifactPlan]) -> ArtifactPlan:
    """The one that is nearest to the model that it was made of."""
    return min(artifacts, key=lambda each: _EXACT.index(each.precision))


FP32_FILE, FP16_FILE, CPU_FP16_FILE = "fp32.onnx", "fp16.onnx", "cpu.fp16.onnx"
CPU_INT8_FILE, TENSORRT_INT8_FILE, INT4_FILE = "cpu.u8s8.onnx", "trt.s8.onnx", "cpu.int4.onnx"


def artifacts_for(targets: tuple[str, ...], precisions: tuple[Precision, ...]) -> tuple[ArtifactPlan, ...]:
    """The files that `targets` want, in the order in which their nodes should prefer them.

    int8 for CPUs and int8 for TensorRT are two files, since no one file serves both (docs/bundle.md). fp16 is for GPUs;
    CPUs, which gain bytes by it and no speed, get it only where there is no GPU.
    """
    cpus = tuple(target for target in targets if BOARDS[target].family == "cpu")
    gpus = tuple(target for target in targets if target not in cpus)
    wanted = {
        "int8": (ArtifactPlan(CPU_INT8_FILE, "int8", cpus), ArtifactPlan(TENSORRT_INT8_FILE, "int8", gpus, "tensorrt")),
        "int4": (ArtifactPlan(INT4_FILE, "int4", cpus),),
        "fp16": (ArtifactPlan(FP16_FILE, "fp16", gpus) if gpus else ArtifactPlan(CPU_FP16_FILE, "fp16", cpus),),
        "fp32": (ArtifactPlan(FP32_FILE, "fp32", targets),),
    }
    return tuple(each for precision in precisions for each in wanted[precision] if each.targets)
