"""What docs/hil.md promises is what the suite has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from contracts.acceptance import CHECKS, Verdict
from hil.boards import Action, Board, Limits, SensorKind
from hil.conftest import pytest_addoption

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hil.md").read_text()
_ROW = re.compile(r"^\| (`[a-z0-9_]+`(?:, `[a-z0-9_]+`)*) \| (`[^`]*`|none)? ?\|", re.MULTILINE)


def rows(heading: str) -> dict[str, str]:
    """Keys of the table under a heading row, with their defaults."""
    table = PAGE.partition(f"\n| {heading} | default |")[2].partition("\n\n")[0]
    found = [(key, value) for keys, value in _ROW.findall(table) for key in re.findall(r"`([^`]+)`", keys)]
    return {key: value.strip("`") for key, value in found}


def defaults(kind: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(kind):
        value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if isinstance(value, msgspec.Struct):
            yield field.name, ""
        else:
            yield field.name, "none" if value is None else msgspec.json.encode(value).decode()


@pytest.mark.parametrize(("heading", "kind"), [("key", Board), ("key of an action", Action), ("key of limits", Limits)])
def test_every_key_is_documented_with_its_default(heading: str, kind: type[msgspec.Struct]) -> None:
    assert rows(heading) == dict(defaults(kind))


def test_every_check_verdict_and_sensor_is_told() -> None:
    words = (*CHECKS, *get_args(Verdict), *get_args(SensorKind))
    assert not [word for word in words if f"| `{word}` |" not in PAGE]


def test_the_example_is_shown_as_it_is() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert shown == (ROOT / "examples" / "boards.toml").read_text()


def test_every_option_of_the_tests_is_told() -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    names = [name for group in parser._groups for option in group.options for name in option.names()]
    assert len(names) > 10
    assert not [name for name in names if f"`{name}`" not in PAGE]
