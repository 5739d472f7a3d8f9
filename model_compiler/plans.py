"""From a recipe to what is compiled: its data loaded, its import paths resolved."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from contracts.boards import BOARDS
from model_compiler import pack
from model_compiler.data.folder import Folder, read_folder
from model_compiler.data.parts import split
from model_compiler.data.samples import Arrays, Data, Rows, Samples
from model_compiler.errors import CompileError
from model_compiler.imports import resolve, source_of
from model_compiler.onnx_ends import ends_of
from model_compiler.pack import Packed
from model_compiler.plan import Net, OnnxFile, Plan, Source, Training, artifacts_for
from model_compiler.recipe import SourceTable
from model_compiler.recipe_file import RecipeFile
from model_compiler.replay import Ends

_PARTS = ("train", "calibration", "validation", "fit", "threshold", "test")


class Sources(msgspec.Struct, frozen=True):
    """The samples of a recipe, the names of the labels that its folders give, and in words what is measured on what."""

    data: Data
    labels: tuple[str, ...]
    how: str


def edge_plan(file: RecipeFile, cache: Path, cloud: Packed | None) -> Plan:
    """What the recipe compiles. `cache` keeps decoded pictures; `cloud` is what it is certified against.

    Raises RecipeError or CompileError for what the recipe names and is not there.
    """
    recipe = file.recipe
    sources = load_data(file, cache)
    student = _source(file, "student", recipe.student)
    teacher = _source(file, "teacher", recipe.teacher)
    bundle = recipe.bundle
    return Plan(
        name=bundle.name,
        version=bundle.version,
        model=bundle.model,
        task=bundle.task,
        tier="edge",
        data=sources.data,
        artifacts=artifacts_for(bundle.targets, bundle.precisions),
        how=sources.how,
        student=student,
        teacher=teacher,
        prune=recipe.prune,
        learning=recipe.learn,
        quantizing=recipe.quantize,
        budget=recipe.budget,
        metric=_metric(file),
        metric_name=bundle.metric,
        cloud=cloud,
        promise=recipe.promise,
        preprocess=recipe.preprocess,
        kind=recipe.kind,
        labels=bundle.labels or sources.labels,
        ends=_ends(file, student or teacher),
        max_batch=bundle.max_batch,
        seed=bundle.seed,
    )


def cloud_plan(file: RecipeFile, edge: Plan) -> Plan | None:
    """The teacher as a bundle of its own, where the recipe names one; `edge` is the plan of the same recipe."""
    recipe = file.recipe
    if recipe.cloud is None or not recipe.cloud.name or recipe.teacher is None:
        return None
    return msgspec.structs.replace(
        edge,
        name=recipe.cloud.name,
        version=recipe.cloud.version,
        tier="cloud",
        artifacts=artifacts_for(tuple(BOARDS), ("fp32",)),
        student=edge.teacher,
        teacher=None,
        prune=None,
        learning=None,
        cloud=None,
    )


def given_cloud(file: RecipeFile) -> Packed | None:
    """The packed cloud bundle that the recipe names by its directory. Raises RecipeError when it is none."""
    cloud = file.recipe.cloud
    if cloud is None or not cloud.bundle:
        return None
    try:
        return pack.read(file.directory / cloud.bundle)
    except CompileError as error:
        raise file.refuse("cloud.bundle", str(error)) from error


def load_data(file: RecipeFile, cache: Path) -> Sources:
    """The recipe's samples by their use. A part that is named comes from there, any other from the split folder."""
    table = file.recipe.data
    given = {part: _load(file, f"data.{part}", getattr(table, part), cache) for part in _PARTS if getattr(table, part)}
    parts: dict[str, Samples] = {part: loaded.samples for part, loaded in given.items()}
    labels = next((loaded.labels for loaded in given.values() if loaded.labels), ())
    if table.folder:
        folder = _load(file, "data.folder", table.folder, cache)
        labels = folder.labels or labels
        parts = {**_split(file, folder.samples, given), **parts}
    return Sources(_data(file, parts), labels, _how(file, parts))


class Loaded(msgspec.Struct, frozen=True):
    samples: Samples
    labels: tuple[str, ...]


def _load(file: RecipeFile, key: str, named: str, cache: Path) -> Loaded:
    """`named` is an import path, or else a directory of pictures."""
    if ":" in named and not (file.directory / named).exists():
        return Loaded(_from_import(file, key, named), ())
    preprocess = file.recipe.preprocess
    if preprocess is None:
        raise file.refuse(key, "pictures need a [preprocess] table that says how they become the model's input.")
    try:
        folder: Folder = read_folder(file.directory / named, preprocess, cache)
    except CompileError as error:
        raise file.refuse(key, str(error)) from error
    return Loaded(folder.samples, folder.labels)


def _from_import(file: RecipeFile, key: str, named: str) -> Samples:
    try:
        loaded = resolve(named, file.directory)()
    except CompileError as error:
        raise file.refuse(key, str(error)) from error
    if isinstance(loaded, tuple) and len(loaded) == 2:
        loaded = Arrays(*(np.asarray(each) for each in loaded))
    if not (hasattr(loaded, "batch") and hasattr(loaded, "labels") and hasattr(loaded, "digest")):
        raise file.refuse(key, f"{named} gave {type(loaded).__name__}. Return (inputs, labels) arrays, or Samples.")
    samples: Samples = loaded
    if isinstance(samples, Arrays) and (samples.inputs.dtype != np.float32 or len(samples.inputs) != len(samples)):
        raise file.refuse(key, f"{named} must give float32 inputs and as many labels as inputs.")
    return samples


def _split(file: RecipeFile, samples: Samples, given: dict[str, Loaded]) -> dict[str, Rows]:
    table = file.recipe.data
    wanted = {part: getattr(table.split, part) for part in _PARTS if part != "train" and part not in given}
    try:
        parts = split(samples, wanted, seed=table.seed)
    except CompileError as error:
        raise file.refuse("data.split", str(error)) from error
    parts["train"] = parts.pop("rest")
    return parts


def _data(file: RecipeFile, parts: dict[str, Samples]) -> Data:
    """Parts that stay unnamed are empty; the stages that need one say so by name."""
    if not parts:
        raise file.refuse("data", "there are no samples. Name a `folder`, or the parts one by one.")
    some = next(iter(parts.values()))
    nothing = Rows(some, np.zeros(0, np.int64))
    ranges, *others = (parts.get(part, nothing) for part in ("calibration", "validation", "fit", "threshold", "test"))
    return Data(parts.get("train", nothing), ranges, *others)


def _how(file: RecipeFile, parts: dict[str, Samples]) -> str:
    test = file.recipe.data.test or f"a part of {file.recipe.data.folder} that nothing was fitted on"
    return f"{len(parts['test']):,} samples of {test}" if "test" in parts else "no test samples"


def _source(file: RecipeFile, table: str, source: SourceTable | None) -> Source | None:
    if source is None:
        return None
    if source.onnx:
        return OnnxFile(_existing(file, f"{table}.onnx", source.onnx))
    try:
        build = resolve(source.build, file.directory)
    except CompileError as error:
        raise file.refuse(f"{table}.build", str(error)) from error
    weights = _existing(file, f"{table}.weights", source.weights) if source.weights else None
    told = msgspec.json.encode([source.build, source.arguments, source_of(build)], order="sorted").decode()
    training = Training(source.schedule, source.augment) if source.schedule is not None else None
    return Net(told, partial(build, **source.arguments), weights, training)


def _existing(file: RecipeFile, key: str, named: str) -> Path:
    path = file.directory / named
    if not path.is_file():
        raise file.refuse(key, f"there is no file {path}.")
    return path


def _metric(file: RecipeFile) -> Any:
    named = file.recipe.bundle.metric
    if not named:
        return None
    try:
        return resolve(named, file.directory)
    except CompileError as error:
        raise file.refuse("bundle.metric", str(error)) from error


def _ends(file: RecipeFile, source: Source | None) -> Ends:
    if isinstance(source, OnnxFile):
        return ends_of(source.path)
    return Ends(file.recipe.postprocess.input, file.recipe.outputs)
