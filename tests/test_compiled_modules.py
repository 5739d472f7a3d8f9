"""The modules that are compiled where a compiler is there say nothing that means something else then."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
COMPILED = [ROOT / name for name in WHEEL["hooks"]["mypyc"]["include"]]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_compiled_module_defines_a_struct(path: Path) -> None:
    """Their options, and what stands in their bodies, mypyc forgets without a word."""
    module = importlib.import_module(name_of(path))
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    assert [each.__name__ for each in own if issubclass(each, msgspec.Struct)] == []


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_tested_is_compiled_where_that_is_asked_for(path: Path) -> None:
    """`make test-compiled` says where they lie; else the sources themselves are tested."""
    module = importlib.import_module(name_of(path))
    where, compiled = Path(module.__file__ or ""), os.environ.get("FOOTHILL_COMPILED", "")
    assert (where.suffix == ".so" and where.is_relative_to(compiled)) if compiled else where == path
