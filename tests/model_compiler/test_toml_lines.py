"""The line of a key, however TOML lets it be written."""

from __future__ import annotations

import pytest

from model_compiler.toml_lines import line_of

TEXT = """\
# [data] is not here
top = 1
[bundle] # the name
name = "a = b"
[ data . split ]
test = 0.1
"we ird" = 2
[student]
arguments = { width = 3 }
arguments.depth = 4
[[list]]
item = 1
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("top", 2),
        ("bundle", 3),
        ("bundle.name", 4),
        ("data.split.test", 6),
        ("data.split.we ird", 7),
        ("student.arguments.depth", 10),
        ("student.arguments.width", 9),
        ("list.item", 12),
        ("bundle.missing", 3),
        ("missing.table", 1),
        ("", 1),
    ],
)
def test_a_key_has_its_own_line_or_that_of_the_nearest_table_around_it(key: str, line: int) -> None:
    assert line_of(TEXT, key) == line


def test_dotted_keys_without_a_table_are_found() -> None:
    assert line_of('bundle.name = "a"\nbundle.version = "1"\n', "bundle.version") == 2


def test_other_line_ends_count_as_one() -> None:
    assert line_of("a = 1\r\n[b]\r\nc = 2\r\n", "b.c") == 3
