"""The recipes of `examples/`: the digits keep their budget and their promise, and CIFAR-10's is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from model_compiler.imports import resolve
from model_compiler.pack import Packed, read_measurements
from model_compiler.pipeline import compile_recipe, report_of
from model_compiler.recipe_file import RecipeFile
from model_compiler.reporting.report import JSON_FILE, Report, read_report
from model_compiler.stages import Stages

ROOT = Path(__file__).parents[2]
DIGITS, CIFAR = ROOT / "examples" / "digits" / "recipe.toml", ROOT / "examples" / "cifar10" / "recipe.toml"


class Compiled(NamedTuple):
    cloud: Packed
    edge: Packed
    report: Report
    directory: Path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """As docs/compile.md does it from Python."""
    page = (ROOT / "docs" / "compile.md").read_text()
    piece = page.partition("\n```python\n")[2].partition("\n```")[0]
    directory = tmp_path_factory.mktemp("digits")
    (directory / "examples").symlink_to(ROOT / "examples")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        exec(compile(piece, "compile.md", "exec"), names)
    cloud, edge = (_absolute(names[each], directory) for each in ("cloud", "edge"))
    return Compiled(cloud, edge, read_report(report_of(edge.directory) / JSON_FILE), directory)


def _absolute(packed: Packed, directory: Path) -> Packed:
    return Packed(directory / packed.directory, packed.digest, packed.manifest)


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_digits_keep_their_budget(digits: Compiled) -> None:
    chosen = [each for each in digits.report.outcomes if each.chosen]
    assert {each.promise for each in chosen} == {"drop", "bytes"}
    assert [(each.artifact, each.verdict) for each in chosen] == [("cpu.u8s8.onnx", "kept")] * 2
    measured = read_measurements(digits.edge)
    assert measured.teacher is not None
    assert measured.artifacts["cpu.u8s8.onnx"].bytes < 0.05 * measured.teacher.bytes


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_digits_hold_their_promise(digits: Compiled) -> None:
    measured = read_measurements(digits.edge).artifacts
    for artifact in digits.edge.manifest.artifacts:
        assert artifact.confidence is not None
        assert artifact.confidence.feasible
        assert artifact.confidence.cloud_digest == digits.cloud.digest
        escalation = measured[artifact.file].escalation
        assert escalation is not None
        assert escalation <= 0.25


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_changed_line_runs_what_depends_on_it(digits: Compiled, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", digits.directory / "bundles"
    recipe.write_text(DIGITS.read_text().replace("epsilon = 0.03 ", "epsilon = 0.02 "))
    stages = Stages(out / "stages")
    compile_recipe(recipe, out, stages=stages)
    assert {each.stage for each in stages.ran if not each.reused} == {"confidence", "measure"}
    assert len({each.stage for each in stages.ran if each.reused}) >= 6


@pytest.mark.parametrize("path", [DIGITS, CIFAR], ids=["digits", "cifar10"])
def test_recipes_are_valid_and_name_what_is_there(path: Path) -> None:
    file = RecipeFile.open(path)
    for source in (file.recipe.teacher, file.recipe.student):
        assert source is not None
        assert resolve(source.build, file.directory)(**source.arguments).state_dict()


def test_the_pruned_form_of_cifar10_is_valid_too() -> None:
    """What stands in comments takes the student's place."""
    text = CIFAR.read_text()
    swapped = re.sub(r"\[student\]\nbuild = .*\n", "", text)
    swapped = re.sub(r"^# (\[prune\]|method = .*|share = .*)$", r"\1", swapped, flags=re.MULTILINE)
    recipe = RecipeFile(CIFAR, swapped).recipe
    assert recipe.student is None
    assert recipe.prune is not None
    assert recipe.prune.share == 0.5
