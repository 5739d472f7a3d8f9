"""Import paths in recipes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model_compiler.errors import CompileError
from model_compiler.imports import resolve, source_of


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    (tmp_path / "foothill_test_nets.py").write_text("import math\nLIMIT = 3\ndef student():\n    return math.pi\n")
    return tmp_path


def test_a_module_beside_the_recipe_is_found_and_the_path_is_left_as_it_was(beside: Path) -> None:
    before = list(sys.path)
    student = resolve("foothill_test_nets:student", beside)
    assert student() == pytest.approx(3.14159, abs=1e-5)
    assert sys.path == before
    assert "def student" in source_of(student)


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
