"""Import paths in recipes."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import pytest

from model_compiler.errors import CompileError
from model_compiler.imports import called, code_of, resolve


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("recipe")
    (directory / "foothill_test_nets.py").write_text("import math\nLIMIT = 3\ndef student():\n    return math.pi\n")
    return directory


def test_a_module_beside_the_recipe_is_found_and_the_path_is_left_as_it_was(beside: Path) -> None:
    before = list(sys.path)
    student = resolve("foothill_test_nets:student", beside)
    assert student() == pytest.approx(3.14159, abs=1e-5)
    assert sys.path == before


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("student", "Write package.module:callable"),
        ("foothill_test_nets:", "Write package.module:callable"),
        ("foothill_test_nowhere:student", "Put the module beside the recipe"),
        ("foothill_test_nets:teacher", "It has: student"),
        ("foothill_test_nets:LIMIT", "no callable 'LIMIT'"),
    ],
)
def test_what_is_missing_is_named(beside: Path, path: str, told: str) -> None:
    with pytest.raises(CompileError, match=told):
        resolve(path, beside)


def test_what_importing_raises_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "foothill_test_raises.py").write_text("x = 1\nraise ValueError('no licence.\\nmore')\n")
    with pytest.raises(CompileError, match=r"raised ValueError: no licence \(.*foothill_test_raises.py:2\)\."):
        resolve("foothill_test_raises:net", tmp_path)


@pytest.mark.parametrize("text", ["import sys; sys.exit(3)", "def net(:", "import foothill_test_nowhere"])
def test_a_module_that_does_not_import_is_refused_whatever_it_does(tmp_path: Path, text: str) -> None:
    (tmp_path / "foothill_test_broken.py").write_text(text)
    with pytest.raises(CompileError, match="foothill_test_broken:net"):
        resolve("foothill_test_broken:net", tmp_path)


def test_a_module_hidden_by_another_of_its_name_is_refused(tmp_path: Path) -> None:
    for recipe in ("one", "other"):
        (tmp_path / recipe).mkdir()
        (tmp_path / recipe / "foothill_test_same.py").write_text(f"def name(): return {recipe!r}")
    assert resolve("foothill_test_same:name", tmp_path / "one")() == "one"
    with pytest.raises(CompileError, match=r"is hidden by .*one/foothill_test_same\.py"):
        resolve("foothill_test_same:name", tmp_path / "other")


def test_code_is_that_of_the_module_and_of_those_beside_it_that_it_uses(tmp_path: Path) -> None:
    layers, net = tmp_path / "foothill_test_layers.py", tmp_path / "foothill_test_using.py"

    def code(width: int, depth: int) -> str:
        for name in ("foothill_test_layers", "foothill_test_using"):
            sys.modules.pop(name, None)
        linecache.clearcache()
        layers.write_text(f"def layer(): return {width}\n")
        net.write_text(f"from foothill_test_layers import layer\ndef net(): return [layer()] * {depth}\n")
        return code_of(resolve("foothill_test_using:net", tmp_path), tmp_path)

    assert code(100, 200) == code(100, 200)
    assert len({code(100, 200), code(1000, 200), code(100, 2000)}) == 3


def test_what_a_call_raises_is_told_with_its_place() -> None:
    def fails(width: int) -> None:
        raise RuntimeError(f"{width} is odd")

    with pytest.raises(CompileError, match=r"^nets:student raised RuntimeError: 3 is odd \(.*test_imports.py:\d+\)"):
        called("nets:student", fails, width=3)
    with pytest.raises(CompileError, match=r"raised TypeError: .*unexpected keyword argument 'depth'"):
        called("nets:student", fails, depth=3)
