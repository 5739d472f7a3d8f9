"""The modules that are compiled where a compiler is there say nothing that means something else then."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
HOOKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
COMPILED = [ROOT / name for name in HOOKS["mypyc"]["include"]]


def forgotten(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """mypyc makes no Structs: their options, and what stands in their bodies, it forgets without a word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases):
            yield node.lineno, f"{node.name} is a Struct: define it in a module that is not compiled"


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_compiled_module_says_what_a_compiler_forgets(path: Path) -> None:
    assert [*forgotten(ast.parse(path.read_text(), path.name))] == []
