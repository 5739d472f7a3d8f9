"""Where in a TOML file its keys stand."""

from __future__ import annotations

import re

_KEY = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"\s*\[\[?\s*(?P<key>{_DOTTED})\s*\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(rf"\s*(?P<key>{_DOTTED})\s*=.*")
_PART = re.compile(_KEY)


def line_of(text: str, key: str) -> int:
    """The line, from 1, of the dotted `key`; where it has none of its own, that of the nearest table around it, or 1.

    What stands inside inline tables has the line of the table; text of several lines that looks like keys is taken for
    keys.
    """
    lines = _lines(text)
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines.get(key, 1)


def _lines(text: str) -> dict[str, int]:
    """Every table and every key in `text`, by its dotted name: the line of the first time that it is named."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.fullmatch(line):
            table = _plain(header["key"])
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.fullmatch(line):
            key = _plain(assignment["key"])
            found.setdefault(f"{table}.{key}" if table else key, number)
    return found


def _plain(key: str) -> str:
    """`data . "split"` as data.split."""
    return ".".join(part.strip("\"'") for part in _PART.findall(key))
