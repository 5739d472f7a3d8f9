"""The modules that are compiled where a compiler is there say nothing that means something else then."""

from __future__ import annotations

import ast
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
COMPILED = [ROOT / name for name in WHEEL["hooks"]["mypyc"]["include"]]


def forgotten(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """mypyc makes no Structs: their options, and what stands in their bodies, it forgets without a word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases):
            yield node.lineno, f"{node.name} is a Struct: define it in a module that is not compiled"


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_compiled_module_says_what_a_compiler_forgets(path: Path) -> None:
    assert [*forgotten(ast.parse(path.read_text(), path.name))] == []


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_tested_is_compiled_where_that_is_asked_for(path: Path) -> None:
    """`make test-compiled` says where they lie; else the sources themselves are tested."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    where, compiled = Path(module.__file__ or ""), os.environ.get("FOOTHILL_COMPILED", "")
    assert (where.suffix == ".so" and where.is_relative_to(compiled)) if compiled else where == path
