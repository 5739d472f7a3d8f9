"""What a recipe names by import path: `package.module:callable`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from model_compiler.errors import CompileError


def resolve(path: str, directory: Path) -> Callable[..., Any]:
    """The callable of `module:name`; modules beside the recipe, in `directory`, are found first.

    Raises CompileError that says which part is missing, or what importing it raised.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise CompileError(f"{path!r} is no import path. Write package.module:callable, such as nets:student.")
    module = _imported(path, module_name, directory)
    found = getattr(module, name, None)
    if not callable(found):
        known = ", ".join(sorted(each for each, value in vars(module).items() if _offered(value, module_name)))
        raise CompileError(f"{path!r}: {module_name} has no callable {name!r}. It has: {known or 'none'}.")
    return found  # type: ignore[no-any-return]


def called(path: str, found: Callable[..., Any], /, *values: Any, **arguments: Any) -> Any:
    """What the callable named `path` gives. Raises CompileError for whatever it raises."""
    try:
        return found(*values, **arguments)
    except CompileError:
        raise
    except (Exception, SystemExit) as error:
        raise CompileError(f"{path} raised {failure_of(error)}. Mend it, or its arguments.") from error


def failure_of(error: BaseException) -> str:
    """An exception of the user's code in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith(ours)]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    told = str(error).strip().partition("\n")[0][:300].rstrip(".")
    return f"{type(error).__name__}{': ' if told else ''}{told}{place}"


def code_of(found: object, directory: Path) -> str:
    """Hex SHA-256 of the text of the module that defines `found`, and of those below `directory` that this one uses."""
    sha256, seen, waiting = hashlib.sha256(), set[str](), [inspect.getmodule(found)]
    while waiting:
        module = waiting.pop()
        if module is None or module.__name__ in seen:
            continue
        seen.add(module.__name__)
        used = (inspect.getmodule(value) for value in vars(module).values())
        waiting += [each for each in used if each is not None and _is_below(each, directory)]
        sha256.update(_text_of(module).encode())
    return sha256.hexdigest()


def _text_of(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ""


def _is_below(module: ModuleType, directory: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(directory.resolve())


def _imported(path: str, name: str, directory: Path) -> Any:
    importlib.invalidate_caches()  # the module may have been written a moment ago
    with _first(directory):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise CompileError(
                f"{path!r}: {error}. Put the module beside the recipe, or install the package that has it."
            ) from error
        except (Exception, SystemExit) as error:
            raise CompileError(f"{path!r}: importing {name} raised {failure_of(error)}. Mend the module.") from error
    beside, root = directory / f"{name.partition('.')[0]}.py", sys.modules[name.partition(".")[0]]
    if beside.is_file() and Path(root.__file__ or "").resolve() != beside.resolve():
        raise CompileError(f"{path!r}: {beside} is hidden by {root.__file__}, imported before. Rename the module.")
    return module


@contextmanager
def _first(directory: Path) -> Iterator[None]:
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))


def _offered(value: object, module_name: str) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module_name
