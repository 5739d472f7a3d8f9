"""What a recipe names by import path: `package.module:callable`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_compiler.errors import CompileError


def resolve(path: str, directory: Path) -> Callable[..., Any]:
    """The callable of `module:name`; modules beside the recipe, in `directory`, are found first.

    Raises CompileError that says which part is missing.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise CompileError(f"{path!r} is no import path. Write package.module:callable, such as nets:student.")
    with _first(directory):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise CompileError(
                f"{path!r}: {error}. Put the module beside the recipe, or install the package that has it."
            ) from error
    found = getattr(module, name, None)
    if not callable(found):
        known = ", ".join(sorted(each for each, value in vars(module).items() if _offered(value, module_name)))
        raise CompileError(f"{path!r}: {module_name} has no callable {name!r}. It has: {known or 'none'}.")
    return found  # type: ignore[no-any-return]


def source_of(found: Callable[..., Any]) -> str:
    """The text of the module that defines it, for digests; empty where there is none to read."""
    module = inspect.getmodule(found)
    try:
        return inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        return ""


@contextmanager
def _first(directory: Path) -> Iterator[None]:
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))


def _offered(value: object, module_name: str) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module_name
