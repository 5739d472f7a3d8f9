"""Configuration: one TOML file into one frozen Struct, or an error that says what to change."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from contracts.decoding import UNREADABLE

T = TypeVar("T", bound=msgspec.Struct)

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`(?: - at `\$\.?(?P<where>[^`]*)`)?")


class SettingsError(Exception):
    """The process cannot start as configured. The message names the file and the key, and says what to do next."""


def load(path: Path | None, kind: type[T]) -> T:
    """Reads `path` as TOML into `kind`; None gives the defaults. Raises SettingsError."""
    if path is None:
        return _convert(b"", "the defaults", kind)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"{path}: cannot be read ({reason}). Give the path of an existing TOML file.") from error
    return _convert(data, str(path), kind)


def _convert(data: bytes, name: str, kind: type[T]) -> T:
    try:
        return msgspec.toml.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}: {_explain(str(error), kind)}") from error
    except UNREADABLE as error:
        raise SettingsError(f"{name}: this is not TOML: {error}. Correct the file at that place.") from error


def _explain(message: str, kind: type[msgspec.Struct]) -> str:
    unknown = _UNKNOWN_FIELD.fullmatch(message)
    if unknown is None:
        return f"{message}. Correct that value; see docs/config.md."
    name, where = unknown["name"], unknown["where"]
    at = f" in `{where}`" if where else ""
    known = [field.encode_name for field in msgspec.structs.fields(kind)] if not where else []
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean `{close[0]}`?" if close else "Remove it, or see docs/config.md for the known keys."
    return f"unknown key `{name}`{at}. {hint}"
