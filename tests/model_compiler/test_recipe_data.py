"""The samples that a recipe names: each part from where it says, the rest from the folder; misfits are told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from model_compiler.data.samples import first
from model_compiler.progress import Step, silent
from model_compiler.recipe_data import Sources, load_data
from model_compiler.recipe_file import RecipeError, RecipeFile

LOADERS = """
import numpy as np

def draw(count, *shape):
    inputs = np.random.default_rng(count).standard_normal((count, *shape)).astype(np.float32)
    return inputs, np.arange(count) % 2

def pictures():
    return draw(10, 3, 4, 6)

def others():
    return draw(12, 3, 4, 6)

def wide():
    return draw(10, 3, 4, 7)

def broken():
    raise FileNotFoundError("samples.npz")

def nothing():
    return None
"""
MODEL = '[bundle]\nname = "a"\nversion = "1"\nmodel = "a"\n[student]\nonnx = "a.onnx"\n'
PICTURES = (
    '[preprocess]\nwidth = 6\nheight = 4\ncolour = "rgb"\nscale = 1.0\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n'
)
HERE = "foothill_recipe_data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loaders, and pictures: 40 of cats and dogs, 4 of cats and eels, 4 that lie loose."""
    folder: Path = tmp_path_factory.mktemp("recipe")
    (folder / f"{HERE}.py").write_text(LOADERS)
    for name, labels, count in (("animals", ("cat", "dog"), 20), ("fishy", ("cat", "eel"), 2), ("loose", ("",), 4)):
        for label in labels:
            draw(folder / name / label, count)
    return folder


def draw(directory: Path, count: int) -> None:
    directory.mkdir(parents=True)
    for number in range(count):
        seed = [number, *directory.name.encode()]
        picture = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8)
        assert cv2.imwrite(str(directory / f"{number:02}.png"), picture)


def recipe(folder: Path, data: str, bundle: str = "") -> RecipeFile:
    text = MODEL.replace("[student]", f"{bundle}\n[student]") + PICTURES + f"[data]\n{data}"
    return RecipeFile(folder / "recipe.toml", text)


def loaded(folder: Path, data: str, bundle: str = "") -> Sources:
    return load_data(recipe(folder, data, bundle), folder / "cache", silent)


def refused(folder: Path, data: str, bundle: str = "") -> str:
    with pytest.raises(RecipeError) as error:
        loaded(folder, data, bundle)
    return str(error.value).removeprefix(f"{folder / 'recipe.toml'}:")


def test_a_part_comes_from_its_loader_and_one_that_is_not_named_stays_empty(folder: Path) -> None:
    found = loaded(folder, f'calibration = "{HERE}:pictures"\ntest = "{HERE}:others"\n')
    data = found.data
    assert [len(part) for part in (data.train, data.ranges, data.validation, data.fit, data.threshold, data.test)] == [
        0, 10, 0, 0, 0, 12,
    ]  # fmt: skip
    assert first(data.some, 99).shape == (10, 3, 4, 6)
    assert (found.labels, found.how) == ((), f"12 samples of {HERE}:others")


def test_a_folder_is_split_and_every_picture_has_one_use(folder: Path) -> None:
    split = "[data.split]\ncalibration = 6\nvalidation = 0.25\nfit = 4\nthreshold = 0.1\ntest = 8\n"
    found = loaded(folder, f'folder = "animals"\n{split}')
    data = found.data
    parts = (data.train, data.ranges, data.validation, data.fit, data.threshold, data.test)
    assert [len(part) for part in parts] == [8, 6, 10, 4, 4, 8]
    assert len({row.tobytes() for part in parts for row in first(part, 99)}) == 40
    assert all(part.labels.mean() == 0.5 for part in parts)
    assert found.labels == ("cat", "dog")
    assert found.how == "8 samples of a part of animals that nothing was fitted on"


def test_what_is_named_is_not_taken_from_the_folder(folder: Path) -> None:
    split = "[data.split]\ncalibration = 6\nvalidation = 10\nfit = 4\nthreshold = 4\ntest = 999\n"
    found = loaded(folder, f'folder = "animals"\ntest = "{HERE}:others"\nfit = "loose"\n{split}')
    assert [len(part) for part in (found.data.test, found.data.fit, found.data.train)] == [12, 4, 20]
    assert found.data.fit.labels.tolist() == [-1] * 4


def test_another_seed_splits_otherwise(folder: Path) -> None:
    split = "[data.split]\ncalibration = 6\n"
    one, same, other = (
        loaded(folder, f'folder = "animals"\n{seed}{split}').data.ranges.digest()
        for seed in ("", "seed = 0\n", "seed = 1\n")
    )
    assert one == same != other


def test_reading_pictures_is_told_as_a_step_of_the_bundle(folder: Path) -> None:
    told: list[Step] = []
    load_data(recipe(folder, 'test = "loose"\n'), folder / "cache", told.append)
    assert {(step.bundle, step.stage) for step in told} == {("a@1", "read test")}
    assert told[-1].done == 1.0


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", "15: data: there are no samples. Name a `folder`, or the parts one by one."),
        ('test = "nowhere"\n', "16: data.test: "),
        (f'test = "{HERE}:lost"\n', f"16: data.test: '{HERE}:lost': {HERE} has no callable 'lost'"),
        (f'test = "{HERE}:broken"\n', f"16: data.test: {HERE}:broken raised FileNotFoundError: samples.npz ("),
        (f'test = "{HERE}:nothing"\n', f"16: data.test: {HERE}:nothing gave NoneType. Return a pair of arrays"),
        (f'test = "{HERE}:wide"\n', "16: data.test: it gives inputs of shape [3, 4, 7], and preprocess of"),
        ('folder = "animals"\ntest = "fishy"\n', "16: data.folder: its folders are not those of data.test"),
        ('folder = "animals"\n[data.split]\ntest = 41\ncalibration = 0.0\n', "17: data.split: 40 samples cannot be"),
        (f'test = "{"x" * 300}:y"\n', "16: data.test: "),
        (f'test = "{"x" * 300}"\n', "16: data.test: "),
    ],
)  # fmt: skip
def test_samples_that_are_not_there_or_do_not_fit_are_refused_with_their_line(
    folder: Path, data: str, told: str
) -> None:
    assert refused(folder, data).startswith(told)


def test_labels_that_differ_are_named_and_an_order_that_pictures_do_not_have_is_refused(folder: Path) -> None:
    assert "(dog, eel in one of them only)" in refused(folder, 'folder = "animals"\ntest = "fishy"\n')
    swapped = refused(folder, 'test = "animals"\n', 'labels = ["dog", "cat"]')
    assert swapped == "5: bundle.labels: folders are numbered by name. Name them so: cat, dog."
    renamed = loaded(folder, 'test = "animals"\n', 'labels = ["Katze", "Hund"]')
    assert renamed.labels == ("cat", "dog")


def test_pictures_need_to_know_how_they_become_inputs(folder: Path) -> None:
    bare = RecipeFile(folder / "recipe.toml", MODEL + '[data]\ntest = "animals"\n')
    with pytest.raises(RecipeError, match=r"recipe\.toml:8: data\.test: pictures need a \[preprocess\] table"):
        load_data(bare, folder / "cache", silent)


def test_loaders_must_agree_on_one_shape_where_nothing_else_says_it(folder: Path) -> None:
    bare = RecipeFile(folder / "recipe.toml", MODEL + f'[data]\nfit = "{HERE}:pictures"\ntest = "{HERE}:wide"\n')
    with pytest.raises(RecipeError, match=r":9: data\.test: .* \[3, 4, 7\], and data\.fit of shape \[3, 4, 6\]\. Give"):
        load_data(bare, folder / "cache", silent)
