"""From a recipe to what is compiled: its data loaded, its import paths resolved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from contracts.boards import BOARDS
from contracts.errors import FoothillError
from model_compiler import pack
from model_compiler.data.samples import Floats, Labels
from model_compiler.errors import CompileError, about
from model_compiler.imports import called, code_of, resolve
from model_compiler.metrics import Metric
from model_compiler.onnx_ends import ends_of, fitted
from model_compiler.pack import Packed
from model_compiler.plan import Budget, Net, OnnxFile, Plan, Source, Training, artifacts_for
from model_compiler.progress import Progress, silent
from model_compiler.recipe import SourceTable
from model_compiler.recipe_data import load_data
from model_compiler.recipe_file import RecipeFile
from model_compiler.replay import Ends


def edge_plan(file: RecipeFile, cache: Path, cloud: Packed | None, *, progress: Progress = silent) -> Plan:
    """What the recipe compiles. `cache` keeps decoded pictures; `cloud` is what it is certified against.

    Raises RecipeError or CompileError for what the recipe names and is not there.
    """
    recipe, bundle = file.recipe, file.recipe.bundle
    student = _source(file, "student", recipe.student)
    teacher = _source(file, "teacher", recipe.teacher)
    metric = _metric(file)
    sources = load_data(file, cache, progress)
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
        metric=_checked(metric, bundle.metric) if metric is not None else None,
        metric_name=bundle.metric,
        metric_code=code_of(metric, file.directory) if metric is not None else "",
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
    if recipe.cloud is None or not recipe.cloud.name or edge.teacher is None:
        return None
    teacher, ends = edge.teacher, msgspec.structs.replace(edge.ends, batch=None)
    return msgspec.structs.replace(
        edge,
        name=recipe.cloud.name,
        version=recipe.cloud.version,
        tier="cloud",
        artifacts=artifacts_for(tuple(BOARDS), ("fp32",)),
        student=teacher,
        teacher=None,
        prune=None,
        learning=None,
        budget=Budget(),
        cloud=None,
        ends=fitted(ends, teacher.path) if isinstance(teacher, OnnxFile) else ends,
    )


def given_cloud(file: RecipeFile) -> Packed | None:
    """The packed cloud bundle that the recipe names by its directory. Raises RecipeError when it is none that fits."""
    recipe = file.recipe
    if recipe.cloud is None or not recipe.cloud.bundle:
        return None
    try:
        cloud = pack.read(file.directory / recipe.cloud.bundle)
    except (CompileError, FoothillError) as error:
        raise file.refuse("cloud.bundle", str(error)) from error
    manifest = cloud.manifest
    for what, theirs, ours in (
        ("the task", manifest.task, recipe.bundle.task),
        ("the logical model", manifest.model, recipe.bundle.model),
        ("the preprocess table", manifest.preprocess, recipe.preprocess),
    ):
        if theirs != ours and None not in (theirs, ours):
            told = f"{manifest.reference} has {what} {theirs}, the recipe {ours}"
            raise file.refuse("cloud.bundle", f"{told}. The two must see the same: name another bundle, or change one.")
    return cloud


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
    training = Training(source.schedule, source.augment) if source.schedule is not None else None
    code = code_of(build, file.directory)
    return Net(source.build, partial(build, **source.arguments), weights, training, code)


def _existing(file: RecipeFile, key: str, named: str) -> Path:
    path = file.directory / named
    if not os.path.isfile(path):  # not Path.is_file: some names are too long
        raise file.refuse(key, f"there is no file {path}.")
    return path


def _metric(file: RecipeFile) -> Metric | None:
    named = file.recipe.bundle.metric
    if not named:
        return None
    try:
        return resolve(named, file.directory)
    except CompileError as error:
        raise file.refuse("bundle.metric", str(error)) from error


def _checked(metric: Metric, name: str) -> Metric:
    """A metric that raises CompileError where the user's own raises anything, or gives no number."""

    def checked(outputs: Mapping[str, Floats], labels: Labels) -> float:
        with about("bundle.metric"):
            value = called(name, metric, outputs, labels)
            if not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise CompileError(f"{name} gave {value!r}. Return a share of 1, higher for better.")
        return float(value)

    return checked


def _ends(file: RecipeFile, source: Source | None) -> Ends:
    """Those of an ONNX file, in the order in which the recipe names them; of a network as the recipe names them."""
    recipe, wanted = file.recipe, file.recipe.postprocess.outputs
    if not isinstance(source, OnnxFile):
        return Ends(recipe.postprocess.input, recipe.outputs)
    ends = ends_of(source.path)
    if wanted and set(wanted) != set(ends.outputs):
        raise file.refuse(
            "postprocess.outputs", f"the file has the outputs {', '.join(ends.outputs)}. Name just these."
        )
    return msgspec.structs.replace(ends, outputs=wanted or ends.outputs)
