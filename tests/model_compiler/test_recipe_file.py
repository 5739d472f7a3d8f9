"""Recipes that are none: each refused in one line, with the place and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_compiler.errors import CompileError
from model_compiler.recipe_file import MAX_RECIPE_BYTES, RecipeError, RecipeFile

GOOD = """\
[bundle]
name = "a"
version = "1"
model = "a"
[student]
build = "nets:student"
weights = "student.safetensors"
"""


def refused(tmp_path: Path, data: str | bytes) -> str:
    path = tmp_path / "recipe.toml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(RecipeError) as caught:
        RecipeFile.open(path)
    told = str(caught.value)
    assert told.startswith(f"{path}:")
    assert "\n" not in told
    return told.removeprefix(f"{path}:")


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD])
def test_a_good_recipe_is_read_whatever_the_editor_left_in_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.toml").write_bytes(text.encode())
    file = RecipeFile.open(tmp_path / "recipe.toml")
    assert file.recipe.bundle.name == "a"
    assert file.directory == tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + 'build = "x:y"\n', "8: this is not TOML: Cannot overwrite a value"),
        (GOOD + "[bundle]\n", "8: this is not TOML: Cannot declare"),
        ("<html>", "1: this is not TOML: Invalid statement"),
        ("\0\1\2", "1: this is not TOML"),
        (GOOD + 'name = "no end', "8: this is not TOML"),
        (GOOD + "ключ = 1\n", "8: this is not TOML"),
        ("a = " + "[" * 5000, "1: this is not TOML: it is nested without end."),
        (b"[bundle]\nname = 'caf\xe9'", "2: this is no UTF-8 text. Save the file as UTF-8."),
        (b"\x89PNG\r\n\x1a\n\0\0", "1: this is no UTF-8 text."),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert refused(tmp_path, text).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1: bundle: `bundle` is missing. Add it."),
        (GOOD.replace('version = "1"\n', ""), "1: bundle.version: `version` is missing. Add it."),
        ("colour = 1\n" + GOOD, "1: colour: unknown key. Did you mean `cloud`?"),
        (GOOD.replace("model =", "modell ="), "4: bundle.modell: unknown key. Did you mean `model`?"),
        (GOOD + "[data.split]\ntset = 1\n", "9: data.split.tset: unknown key. Did you mean `test`?"),
        (GOOD + "[data]\nsplit = { tset = 1 }\n", "9: data.split.tset: unknown key. Did you mean `test`?"),
        (GOOD + '"we ird" = 1\n', "8: student.we ird: unknown key. Known are: build,"),
        (GOOD + "[learn.schedule]\nepoch = 1\n", "9: learn.schedule.epoch: unknown key. Did you mean `epochs`?"),
        (GOOD.replace('"1"', "1"), "3: bundle.version: it must be a text in quotes, not a whole number."),
        (GOOD + "[budget]\nmax_bytes = 1.5\n", "9: budget.max_bytes: it must be a whole number, not a number."),
        (GOOD + "[quantize]\nequalize = 1\n", "9: quantize.equalize: it must be true or false, not a whole number."),
        (GOOD + 'arguments = ["a"]\n', "8: student.arguments: it must be a table, not a list in brackets."),
        ('[[bundle]]\nname = "x"\n', "1: bundle: it must be a table, not a list in brackets."),
        (GOOD + '[learn]\nways = ["kdd"]\n', "9: learn.ways: 'kdd' is unknown. Did you mean `kd`?"),
        (GOOD + '[quantize]\nmethods = ["x"]\n', "9: quantize.methods: 'x' is unknown. Known are: minmax, entropy,"),
        (GOOD + "[promise]\nepsilon = nan\n", "8: promise: A promise needs epsilon and delta between 0 and 1"),
        (GOOD + "[budget]\nmin_speed_up = nan\n", "9: budget.min_speed_up: it must be above 0"),
    ],
)
def test_what_is_no_recipe_is_told_with_its_line_and_the_fix(tmp_path: Path, text: str, told: str) -> None:
    assert refused(tmp_path, text).startswith(told)


def test_a_file_that_is_far_too_large_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"#" * (10 << 20))
    with pytest.raises(CompileError, match=rf"is larger than {MAX_RECIPE_BYTES} bytes; no recipe is"):
        RecipeFile.open(tmp_path / "recipe.toml")


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_what_cannot_be_opened_is_told_by_its_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(CompileError, match=r"cannot be read .*Give the path of a recipe"):
        RecipeFile.open(tmp_path / name)


def test_what_is_found_wrong_later_is_told_with_its_line_too() -> None:
    file = RecipeFile(Path("recipe.toml"), GOOD)
    assert str(file.refuse("student.weights", "no such file.")) == "recipe.toml:7: student.weights: no such file."
