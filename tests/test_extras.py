"""Every extra brings what its role imports, lazily or not: the sources against the installed packages."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from foothill.rooms import ROOMS

ROOT = Path(__file__).parents[1]
OWN = {"contracts", "runtime", "router", "fleet", "edge_node", "cloud_tier", "model_compiler", "hil", "foothill"}
# These compute with arrays where the caller has numpy, and do without else; watch cameras with an extra of its own.
OPTIONAL = {"foothill.client": {"numpy"}, "router": {"opentelemetry"}, "edge_node": {"av", "scipy"}}
ROLES = [("foothill.client", ""), *((room.module.partition(".")[0], room.extra) for room in ROOMS.values())]


class Project(msgspec.Struct, rename="kebab"):
    dependencies: list[str]
    optional_dependencies: dict[str, list[str]]


class PyProject(msgspec.Struct):
    project: Project


def imports(path: Path) -> Iterator[str]:
    """Every module that a file may import, and every name it takes out of one, which may be a module too."""
    for node in _run_here(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_here(tree: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what is for other versions of Python."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).startswith("sys.version_info"):
            taken = child.body if eval(ast.unparse(child.test), {"sys": sys}) else child.orelse
            for each in taken:
                yield from _run_here(each)
        else:
            yield from _run_here(child)


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()), None)


def foreign_imports(package: str) -> set[str]:
    """The top-level modules of others that a package needs, by itself or through our own modules that it imports."""
    directory = ROOT.joinpath(*package.split("."))
    waiting = {path for path in directory.rglob("*.py") if not _is_of_tests(path)}
    seen: set[Path] = set()
    foreign: set[str] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for module in imports(path):
            top = module.partition(".")[0]
            if top not in OWN:
                foreign.add(top)
            elif (other := file_of(module)) is not None and other not in seen:
                waiting.add(other)
    return foreign - sys.stdlib_module_names - {"__future__"}


def _is_of_tests(path: Path) -> bool:
    """What pytest alone loads, as in `pytest hil`: who has it has pytest."""
    return path.name == "conftest.py" or path.name.startswith("test_")


@cache
def project() -> Project:
    return msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes(), type=PyProject).project


def brought_by(requirements: Iterable[str]) -> set[str]:
    """The distributions that an installation of `requirements` brings, as far as they are installed here."""
    waiting = list(requirements)
    brought: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name == "foothill":
            waiting += [one for extra in requirement.extras for one in project().optional_dependencies[extra]]
        elif name not in brought and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            brought.add(name)
            waiting += _requires(name)
    return brought


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


@pytest.mark.parametrize(("package", "extra"), ROLES, ids=[package for package, _ in ROLES])
def test_an_extra_brings_what_its_role_imports(package: str, extra: str) -> None:
    added = project().optional_dependencies[extra] if extra else []
    brought = brought_by([*project().dependencies, *added])
    providers = metadata.packages_distributions()
    missing = {
        module
        for module in foreign_imports(package) - OPTIONAL.get(package, set())
        if not brought & {canonicalize_name(name) for name in providers.get(module, [module])}
    }
    assert not missing, f"`{package}` imports {missing}, which the extra {extra!r} does not bring"


def test_the_sources_are_really_read() -> None:
    assert {"numpy", "onnxruntime", "aiohttp", "paho"} <= foreign_imports("edge_node")
    assert "torch" in foreign_imports("model_compiler")
    assert "numpy" not in brought_by(project().optional_dependencies["fleet"])
