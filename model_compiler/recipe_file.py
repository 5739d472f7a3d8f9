"""A recipe as it was written: read whole, or refused with the line and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from contracts.decoding import UNREADABLE
from model_compiler.errors import CompileError
from model_compiler.recipe import Recipe
from model_compiler.recipe_rules import broken_rules
from model_compiler.toml_lines import line_of

MAX_RECIPE_BYTES = 1 << 20
_PLACE = r"(?: - at `(?P<where>[^`]*)`)?"
_UNKNOWN = re.compile(rf"Object contains unknown field `(?P<name>[^`]*)`{_PLACE}")
_MISSING = re.compile(rf"Object missing required field `(?P<name>[^`]*)`{_PLACE}")
_CHOICE = re.compile(rf"Invalid enum value '(?P<value>[^']*)'{_PLACE}")
_KIND = re.compile(rf"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`{_PLACE}")
_OTHER = re.compile(rf"(?P<what>.*?){_PLACE}", re.DOTALL)
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_KINDS = {"str": "a text in quotes", "int": "a whole number", "float": "a number", "bool": "true or false",
          "object": "a table", "array": "a list in brackets"}  # fmt: skip


class RecipeError(CompileError):
    """A recipe is refused. The message starts with file:line."""


class RecipeFile:
    """A recipe with the text it was read from, so that what is found wrong later is still told with its line."""

    def __init__(self, path: Path, text: str) -> None:
        """Raises RecipeError for what is no recipe."""
        self.path = path
        self.text = text
        self.recipe = self._read()
        for key, fix in broken_rules(self.recipe):
            raise self.refuse(key, fix)

    @classmethod
    def open(cls, path: Path) -> RecipeFile:
        """Raises RecipeError for what is no recipe, CompileError where there is no such file."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_RECIPE_BYTES + 1)
        except OSError as error:
            raise CompileError(f"{path} cannot be read ({error.strerror}). Give the path of a recipe.") from error
        if len(data) > MAX_RECIPE_BYTES:
            raise CompileError(f"{path} is larger than {MAX_RECIPE_BYTES} bytes; no recipe is. Give the path of one.")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise RecipeError(f"{path}:{line}: this is no UTF-8 text. Save the file as UTF-8.") from error
        return cls(path, text)

    @property
    def directory(self) -> Path:
        """What the recipe's relative paths and modules are looked up in."""
        return self.path.resolve().parent

    def refuse(self, key: str, what: str) -> RecipeError:
        """The error for `key`, such as `data.test`, with its line."""
        return RecipeError(f"{self.path}:{line_of(self.text, key)}: {key}: {what}")

    def _read(self) -> Recipe:
        try:
            return msgspec.toml.decode(self.text, type=Recipe)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from error
        except UNREADABLE as error:
            told = "it is nested without end" if isinstance(error, RecursionError) else str(error)
            at = _TOML_LINE.search(told)
            line = int(at[1]) if at else len(self.text.splitlines()) or 1
            raise RecipeError(f"{self.path}:{line}: this is not TOML: {told}. Correct the file there.") from error

    def _explain(self, message: str) -> RecipeError:
        if found := _UNKNOWN.fullmatch(message):
            table, name = _dotted(found["where"]), found["name"]
            return self.refuse(_join(table, name), f"unknown key. {_hint(name, _keys_of(table))}")
        if found := _MISSING.fullmatch(message):
            key = _join(_dotted(found["where"]), found["name"])
            return self.refuse(key, f"`{found['name']}` is missing. Add it.")
        if found := _CHOICE.fullmatch(message):
            key = _dotted(found["where"])
            return self.refuse(key, f"{found['value']!r} is unknown. {_hint(found['value'], _choices_of(key))}")
        if found := _KIND.fullmatch(message):
            wanted, got = (_in_words(found[each]) for each in ("wanted", "got"))
            return self.refuse(_dotted(found["where"]), f"it must be {wanted}, not {got}.")
        found = _OTHER.fullmatch(message)
        assert found is not None  # The pattern takes every text.
        return self.refuse(_dotted(found["where"]), f"{found['what'].rstrip('.')}. Correct it; see docs/compile.md.")


def _dotted(where: str | None) -> str:
    """msgspec's `$.data.split` as data.split; places within lists count as the list."""
    return re.sub(r"\[[^\]]*\]", "", (where or "").removeprefix("key in ").lstrip("$").lstrip("."))


def _join(table: str, name: str) -> str:
    return f"{table}.{name}" if table else name


def _in_words(kinds: str) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | ") if kind != "null")


def _keys_of(table: str) -> list[str]:
    """The keys that the dotted `table` may have."""
    struct = next((each for each in _parts_of(_type_of(table)) if _is_table(each)), None)
    return [field.encode_name for field in msgspec.structs.fields(struct)] if struct is not None else []


def _choices_of(key: str) -> list[str]:
    """The words that the dotted `key` may have for a value."""
    return [each for each in _parts_of(_type_of(key)) if isinstance(each, str)]


def _type_of(key: str) -> Any:
    kind: Any = Recipe
    for part in key.split(".") if key else []:
        struct = next((each for each in _parts_of(kind) if _is_table(each)), None)
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)} if struct else {}
        kind = fields.get(part)
    return kind


def _parts_of(kind: Any) -> Iterator[Any]:
    """A type, and all that it is made of: the members of unions, the elements of lists, the words of choices."""
    yield kind
    for part in get_args(kind):
        yield from _parts_of(part)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else f"Known are: {', '.join(known) or 'none'}."
