"""A node runs on the Python of JetPack 6, 3.10: what newer ones have brought must not be in its packages.

mypy checks types for 3.10; this checks what mypy lets pass: syntax of the files as 3.10 reads them, modules, and names
that are imported or looked up on a module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("contracts", "runtime", "edge_node")
OLDEST = (3, 10)
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# https://docs.python.org/3/whatsnew/3.11.html, 3.12, 3.13 and 3.14: new modules, and new names of old ones.
NEW_MODULES = {
    "tomllib",
    "wsgiref.types",
    "annotationlib",
    "concurrent.interpreters",
    "compression",
    "string.templatelib",
}
NEW_NAMES = {
    "asyncio": {
        "Barrier",
        "BrokenBarrierError",
        "QueueShutDown",
        "Runner",
        "TaskGroup",
        "Timeout",
        "timeout",
        "timeout_at",
    },
    "asyncio.taskgroups": {"TaskGroup"},
    "builtins": {"BaseExceptionGroup", "ExceptionGroup", "PythonFinalizationError"},
    "calendar": {"Day", "Month"},
    "contextlib": {"chdir"},
    "copy": {"replace"},
    "datetime": {"UTC"},
    "enum": {
        "EnumCheck",
        "FlagBoundary",
        "ReprEnum",
        "StrEnum",
        "global_enum",
        "member",
        "nonmember",
        "property",
        "verify",
    },
    "functools": {"Placeholder"},
    "hashlib": {"file_digest"},
    "inspect": {"getasyncgenstate", "getmembers_static", "markcoroutinefunction"},
    "itertools": {"batched"},
    "logging": {"getHandlerByName", "getHandlerNames", "getLevelNamesMapping"},
    "math": {"cbrt", "exp2", "fma", "sumprod"},
    "operator": {"call", "is_none", "is_not_none"},
    "os": {"EX_NOTFOUND", "process_cpu_count", "unshare", "setns", "listdrives"},
    "os.path": {"isjunction", "isreserved", "splitroot"},
    "pathlib": {"UnsupportedOperation"},
    "queue": {"ShutDown"},
    "random": {"binomialvariate"},
    "re": {"NOFLAG", "PatternError"},
    "socket": {"SO_INCOMING_CPU"},
    "sqlite3": {"Blob"},
    "statistics": {"kde", "kde_random"},
    "sys": {"activate_stack_trampoline", "exception", "monitoring"},
    "threading": {"setprofile_all_threads", "settrace_all_threads"},
    "types": {"CapsuleType", "get_original_bases"},
    "typing": {
        *(
            "LiteralString",
            "Never",
            "NoDefault",
            "NotRequired",
            "ReadOnly",
            "Required",
            "Self",
            "TypeAliasType",
            "TypeIs",
        ),
        *("TypeVarTuple", "Unpack", "assert_never", "assert_type", "clear_overloads", "dataclass_transform"),
        *("get_overloads", "override", "reveal_type"),
    },
}


def too_new(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name. What stands behind a test of the version is left out: it knows what it does."""
    modules: dict[str, str] = {}
    for node in _walked(tree):
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name: each.name for each in node.names}
            yield from ((node.lineno, each.name) for each in node.names if each.name in NEW_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {each.name for each in node.names}
            if node.module in NEW_MODULES:
                yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{name}") for name in names & NEW_NAMES.get(node.module, set()))
        elif isinstance(node, ast.Attribute):
            module = modules.get(ast.unparse(node.value), "")
            if node.attr in NEW_NAMES.get(module, set()):
                yield node.lineno, f"{module}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in NEW_NAMES["builtins"]:
            yield node.lineno, node.id


def _walked(tree: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, in the order of the text."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "sys.version_info" in ast.unparse(child.test)):
            yield from _walked(child)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_newer_than_the_oldest_python(path: Path) -> None:
    tree = ast.parse(path.read_text(), path.name, feature_version=OLDEST)
    assert list(too_new(tree)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import tomllib", ["tomllib"]),
        ("from asyncio import timeout", ["asyncio.timeout"]),
        ("import asyncio as a\nasync def f():\n  async with a.TaskGroup(): pass", ["asyncio.TaskGroup"]),
        ("import datetime\ndatetime.UTC", ["datetime.UTC"]),
        ("raise ExceptionGroup('x', [])", ["ExceptionGroup"]),
        ("import os.path\nos.path.splitroot('/')", ["os.path.splitroot"]),
        ("import sys\nif sys.version_info >= (3, 11):\n  import tomllib", []),
        ("import asyncio\nasyncio.wait_for", []),
        ("class A:\n  timeout = 1\nA.timeout", []),
    ],
)
def test_what_is_too_new_is_found(source: str, found: list[str]) -> None:
    assert [name for _, name in too_new(ast.parse(source))] == found


@pytest.mark.parametrize(
    "source", ["try: pass\nexcept* OSError: pass", "def f[T](x: T) -> T: return x", "type X = int"]
)
def test_syntax_of_newer_pythons_is_refused(source: str) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(source, feature_version=OLDEST)
