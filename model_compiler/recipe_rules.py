"""What a recipe must hold to beyond the types of its keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from contracts import manifest as manifests
from contracts.boards import BOARDS
from contracts.manifest import MAX_PIXELS, Preprocess
from model_compiler.confidence import Promise
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule
from model_compiler.plan import Budget, Prune, artifacts_for
from model_compiler.recipe import BundleTable, DataTable, Recipe, SourceTable, SplitTable

Broken = tuple[str, str]
"""A dotted key, and what to do."""

_NAME = "write lower-case letters, digits and '-', at most 63."
_VERSION = "write one to three numbers with dots, such as 1.4.0."
_MAX_LABEL_BYTES = 1 << 19
"""Half of what a manifest may have."""


class Bound(msgspec.Struct, frozen=True):
    """From `low` to `high`; `beyond`: `low` itself is too low already."""

    low: float
    high: float
    beyond: bool = False

    def holds(self, value: float) -> bool:
        """False for what is no number."""
        return (self.low < value if self.beyond else self.low <= value) and value <= self.high

    @property
    def told(self) -> str:
        return f"it must be {'above' if self.beyond else 'at least'} {self.low:,} and at most {self.high:,}."


_SEED = Bound(0, 2**32 - 1)
_SHARE = Bound(0, 1, beyond=True)
_COUNT = Bound(0, 10**9)
_BOUNDS: dict[type, dict[str, Bound]] = {
    BundleTable: {"max_batch": Bound(1, 4096), "seed": _SEED},
    Schedule: {
        "epochs": Bound(1, 100_000),
        "peak": Bound(0, 10, beyond=True),
        "batch": Bound(1, 65_536),
        "weight_decay": Bound(0, 100),
        "threads": Bound(1, 256),
    },
    Augment: {"shift": Bound(0, 4096), "cutout": Bound(0, 4096), "views": Bound(0, 1000)},
    Prune: {"share": Bound(0, 0.99, beyond=True)},
    Budget: {
        "max_drop_points": Bound(0, 100),
        "min_speed_up": Bound(0, 10**6, beyond=True),
        "max_latency_ms": Bound(0, 10**9, beyond=True),
        "max_bytes": Bound(1, 10**12),
    },
    Promise: {"max_escalation": _SHARE},
    DataTable: {"seed": _SEED},
    SplitTable: dict.fromkeys(("calibration", "validation", "fit", "threshold", "test"), _COUNT),
    Preprocess: {
        "width": Bound(1, 65_536),
        "height": Bound(1, 65_536),
        "scale": Bound(0, 10**6, beyond=True),
        "mean": Bound(-(10**9), 10**9),
        "std": Bound(0, 10**9, beyond=True),
    },
}


def broken_rules(recipe: Recipe) -> Iterator[Broken]:
    """Every rule that the recipe breaks, those of single values first."""
    yield from _out_of_bounds(recipe, "")
    yield from _bundle(recipe)
    yield from _models(recipe)
    yield from _pruning(recipe)
    yield from _learning(recipe)
    yield from _cloud(recipe)
    yield from _data(recipe)
    yield from _ends(recipe)


def _out_of_bounds(struct: Any, prefix: str) -> Iterator[Broken]:
    bounds = _BOUNDS.get(type(struct), {})
    for field in msgspec.structs.fields(struct):
        key, value = f"{prefix}{field.encode_name}", getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _out_of_bounds(value, f"{key}.")
        elif bound := bounds.get(field.name):
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            if not all(bound.holds(each) for each in values):
                yield key, bound.told


def _bundle(recipe: Recipe) -> Iterator[Broken]:
    bundle = recipe.bundle
    if not manifests.is_name(bundle.name):
        yield "bundle.name", _NAME
    if not manifests.is_version(bundle.version):
        yield "bundle.version", _VERSION
    if not manifests.is_name(bundle.model):
        yield "bundle.model", _NAME
    for target in bundle.targets:
        if target not in BOARDS:
            yield "bundle.targets", f"{target!r} is unknown. Known are: {', '.join(BOARDS)}."
            return
    yield from _twice("bundle.targets", bundle.targets)
    yield from _twice("bundle.precisions", bundle.precisions)
    if not artifacts_for(bundle.targets, bundle.precisions):
        yield "bundle.precisions", "no file comes of these targets and precisions. Add a target, or fp32."
    if len(msgspec.json.encode(bundle.labels)) > _MAX_LABEL_BYTES:
        yield "bundle.labels", f"they have more than {_MAX_LABEL_BYTES} bytes. Shorten them, or leave them to callers."
    if recipe.quantize.int4_block not in (32, 64, 128):
        yield "quantize.int4_block", "it must be 32, 64 or 128."
    if not recipe.quantize.methods:
        yield "quantize.methods", "name at least one of minmax, entropy, percentile."
    yield from _twice("quantize.methods", recipe.quantize.methods)


def _models(recipe: Recipe) -> Iterator[Broken]:
    teacher, student = recipe.teacher, recipe.student
    if teacher is None and student is None:
        yield "bundle", "there is no model. Add a [student] or a [teacher] table."
    for table, source in (("teacher", teacher), ("student", student)):
        if source is not None:
            yield from _source(table, source)
    if teacher is not None and teacher.build and not teacher.weights and teacher.schedule is None:
        yield "teacher", "it needs `weights`, or a `schedule` to be trained by."
    if student is not None and student.schedule is not None:
        yield "student.schedule", "a student learns by [learn]: move it there."
    if student is not None and student.build and not student.weights and recipe.learn is None:
        yield "student", "it needs `weights`, or a [learn] table to learn by."


def _source(table: str, source: SourceTable) -> Iterator[Broken]:
    if bool(source.build) == bool(source.onnx):
        yield table, "give either `build` (an import path) or `onnx` (a file)."
    if source.weights and source.onnx:
        yield f"{table}.weights", "an ONNX file has its weights inside: remove this."
    if source.weights and source.schedule is not None:
        yield f"{table}.schedule", "a network with weights is not trained: remove one of the two."
    if source.arguments and source.onnx:
        yield f"{table}.arguments", "an ONNX file takes none: remove this."


def _pruning(recipe: Recipe) -> Iterator[Broken]:
    if recipe.prune is None:
        return
    if recipe.teacher is None or not recipe.teacher.build:
        yield "prune", "it needs a [teacher] with `build`."
    if recipe.student is not None:
        yield "prune", "the student is the pruned teacher: remove [student]."
    if recipe.learn is None:
        yield "prune", "a pruned teacher must learn again: add [learn]."


def _learning(recipe: Recipe) -> Iterator[Broken]:
    learn, teacher, student = recipe.learn, recipe.teacher, recipe.student
    if learn is None:
        return
    if recipe.prune is None and not (student and student.build):
        yield "learn", "nothing learns here. Add a [student] with `build`, or [prune]."
    if student is not None and student.weights and learn.qat is None:
        yield "learn", "the student comes with weights, and nothing learns. Remove [learn] or `weights`, or add qat."
    if not learn.ways:
        yield "learn.ways", "name at least one of plain, kd, dkd, dist, hints."
    yield from _twice("learn.ways", learn.ways)
    if len(learn.ways) > 1 and learn.trial is None:
        yield "learn.ways", "several ways need a `trial` schedule, by which the best is found. Add it, or name one way."
    if learn.trial is not None and teacher is None:
        yield "learn.trial", "without a [teacher] a student learns from the labels alone: remove this."


def _cloud(recipe: Recipe) -> Iterator[Broken]:
    cloud, bundle = recipe.cloud, recipe.bundle
    if cloud is None:
        return
    if bool(cloud.name) == bool(cloud.bundle):
        yield "cloud", "give either `name` (the teacher is packed under it) or `bundle` (a packed one's directory)."
    if cloud.name and not manifests.is_name(cloud.name):
        yield "cloud.name", _NAME
    if not manifests.is_version(cloud.version):
        yield "cloud.version", _VERSION
    if cloud.name and recipe.teacher is None:
        yield "cloud.name", "it needs a [teacher] to pack."
    if (cloud.name, cloud.version) == (bundle.name, bundle.version):
        yield "cloud.name", "the edge bundle has this name and version. Name the two differently."


def _data(recipe: Recipe) -> Iterator[Broken]:
    for part, size in msgspec.structs.asdict(recipe.data.split).items():
        if size >= 1 and math.floor(size) != size:
            yield f"data.split.{part}", "write a share below 1, or a whole number of samples."
    pre = recipe.preprocess
    if pre is None:
        return
    channels = 1 if pre.colour == "grey" else 3
    for name in ("mean", "std"):
        if len(getattr(pre, name)) != channels:
            yield f"preprocess.{name}", f"{pre.colour} has {channels} channels: write {channels} values."
    if pre.layout is not msgspec.UNSET:
        yield "preprocess.layout", "what is compiled takes NCHW: leave it out."
    if pre.width * pre.height > MAX_PIXELS:
        yield "preprocess.width", f"{pre.width}x{pre.height} are more than {MAX_PIXELS} pixels."


_KINDS_OF = {"classification": ("logits", "probabilities"), "embedding": ("vector",)}


def _ends(recipe: Recipe) -> Iterator[Broken]:
    task, kind = recipe.bundle.task, recipe.kind
    if kind not in _KINDS_OF.get(task, (kind,)):
        yield "postprocess.kind", f"the answers of {task} are {' or '.join(_KINDS_OF[task])}, not {kind}."
    yield from _twice("postprocess.outputs", recipe.outputs)
    model = recipe.student or recipe.teacher
    if model is not None and model.onnx:
        return  # the file has names of its own
    for key, names in (("input", (recipe.postprocess.input,)), ("outputs", recipe.outputs)):
        if not all(name.isidentifier() for name in names):
            yield f"postprocess.{key}", "write names of letters, digits and '_', such as logits."
    if recipe.postprocess.input in recipe.outputs:
        yield "postprocess.input", "an output has this name. Name the two differently."


def _twice(key: str, values: tuple[str, ...]) -> Iterator[Broken]:
    for number, value in enumerate(values):
        if value in values[:number]:
            yield key, f"{value!r} is named twice. Remove one."
