"""The samples that a recipe names, by their use."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
import numpy as np

from model_compiler.data.folder import read_folder
from model_compiler.data.given import taken
from model_compiler.data.parts import split
from model_compiler.data.samples import Data, Rows, Samples
from model_compiler.errors import CompileError
from model_compiler.imports import called, resolve
from model_compiler.progress import Progress, stage_of
from model_compiler.recipe_file import RecipeFile

_PARTS = ("train", "calibration", "validation", "fit", "threshold", "test")


class Sources(msgspec.Struct, frozen=True):
    """The samples of a recipe, the names of the labels that its folders give, and in words what is measured on what."""

    data: Data
    labels: tuple[str, ...]
    how: str


class _Loaded(msgspec.Struct, frozen=True):
    """`labels`: the names of the folders that the pictures lie in; empty for anything else."""

    key: str
    samples: Samples
    labels: tuple[str, ...] = ()


def load_data(file: RecipeFile, cache: Path, progress: Progress) -> Sources:
    """A part that is named comes from there, any other from the split folder. `cache` keeps decoded pictures.

    Raises RecipeError for what is not there, or does not go together.
    """
    table = file.recipe.data
    named = [part for part in _PARTS if getattr(table, part)]
    given = {part: _load(file, f"data.{part}", getattr(table, part), cache, progress) for part in named}
    folder = _load(file, "data.folder", table.folder, cache, progress) if table.folder else None
    loaded = [*given.values(), *([folder] if folder else [])]
    if not loaded:
        raise file.refuse("data", "there are no samples. Name a `folder`, or the parts one by one.")
    labels = _labels(file, loaded)
    _check_shapes(file, loaded)
    parts = {part: each.samples for part, each in given.items()}
    if folder is not None:
        parts = {**_split(file, folder.samples, given.keys()), **parts}
    return Sources(_data(parts), labels, _how(file, parts))


def _load(file: RecipeFile, key: str, named: str, cache: Path, progress: Progress) -> _Loaded:
    """`named` is an import path, or else a directory of pictures."""
    try:
        if ":" in named and not os.path.exists(file.directory / named):  # not Path.exists: some names are too long
            return _Loaded(key, taken(called(named, resolve(named, file.directory)), named))
        preprocess = file.recipe.preprocess
        if preprocess is None:
            raise CompileError("pictures need a [preprocess] table that says how they become the model's input.")
        bundle = file.recipe.bundle
        advance = stage_of(progress, f"{bundle.name}@{bundle.version}", f"read {key.partition('.')[2]}")
        return _Loaded(key, *read_folder(file.directory / named, preprocess, cache, advance=advance))
    except CompileError as error:
        raise file.refuse(key, str(error)) from error


def _labels(file: RecipeFile, loaded: list[_Loaded]) -> tuple[str, ...]:
    """The names of the folders, which must be the same wherever there are some: their order numbers the labels."""
    wanted = file.recipe.bundle.labels
    folders = [each for each in loaded if each.labels]
    for each in folders[1:]:
        if each.labels != folders[0].labels:
            odd = sorted(set(each.labels) ^ set(folders[0].labels))
            told = f"its folders are not those of {folders[0].key} ({', '.join(odd[:5])} in one of them only)"
            raise file.refuse(each.key, f"{told}. Give every part a folder for each label, with a picture in it.")
    found = folders[0].labels if folders else ()
    if found and found != wanted and set(found) == set(wanted):
        raise file.refuse("bundle.labels", f"folders are numbered by name. Name them so: {', '.join(found)}.")
    return found


def _check_shapes(file: RecipeFile, loaded: list[_Loaded]) -> None:
    pre = file.recipe.preprocess
    wanted = [("preprocess", (len(pre.mean), pre.height, pre.width))] if pre is not None else []
    found = [(each.key, each.samples.batch(np.zeros(1, np.int64)).shape[1:]) for each in loaded]
    source, first = [*wanted, *found][0]
    for key, shape in found:
        if shape != first:
            told = f"it gives inputs of shape {list(shape)}, and {source} of shape {list(first)}"
            raise file.refuse(key, f"{told}. Give the same everywhere.")


def _split(file: RecipeFile, samples: Samples, given: Collection[str]) -> dict[str, Samples]:
    table = file.recipe.data
    wanted = {part: getattr(table.split, part) for part in _PARTS if part != "train" and part not in given}
    try:
        parts = split(samples, wanted, seed=table.seed)
    except CompileError as error:
        raise file.refuse("data.split", str(error)) from error
    return {"train" if part == "rest" else part: rows for part, rows in parts.items()}


def _data(parts: Mapping[str, Samples]) -> Data:
    """Parts that stay unnamed are empty; the stages that need one say so by name."""
    nothing = Rows(next(iter(parts.values())), np.zeros(0, np.int64))
    train, ranges, *others = (parts.get(part, nothing) for part in _PARTS)
    return Data(train, ranges, *others)


def _how(file: RecipeFile, parts: Mapping[str, Samples]) -> str:
    if "test" not in parts:
        return "no test samples"
    test = file.recipe.data.test or f"a part of {file.recipe.data.folder} that nothing was fitted on"
    return f"{len(parts['test']):,} samples of {test}"
