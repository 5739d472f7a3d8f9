"""HTML that cannot be broken by what is put into it: only what was made here is taken as markup, all else is text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Kind = Literal["text", "name", "number"]

# What HTML and XML forbid even as a reference: control characters but tab and line feed, non-characters, surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


_MANY = 4


class Html(str):
    """Finished markup."""

    __slots__ = ()


class Column(msgspec.Struct, frozen=True):
    """`number` columns stand right and align their digits, `name` columns break anywhere."""

    title: str
    kind: Kind = "text"


def printable(text: str) -> str:
    """`text` with a replacement character for each that no page may hold."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def escaped(part: str) -> Html:
    """Markup as it is, text made safe for content and for quoted attributes."""
    return part if isinstance(part, Html) else Html(html.escape(printable(part), quote=True))


def join(parts: Iterable[str], between: str = "") -> Html:
    return Html(escaped(between).join(escaped(part) for part in parts))


def element(tag: str, *content: str, **attributes: str) -> Html:
    """`class_` is written class, and other underscores as hyphens; an attribute that is empty is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"' for name, value in attributes.items() if value
    )
    return Html(f"<{tag}{written}>{join(content)}</{tag}>")


def name(text: str) -> Html:
    """What was named elsewhere, letter by letter: a node, a file, a digest."""
    return element("code", text)


def paragraph(*content: str, class_: str = "") -> Html:
    return element("p", *content, class_=class_)


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, marked: Sequence[str] = (), caption: str = ""
) -> Html:
    """`marked`: a class for each row. On a narrow page a row of many columns becomes a card, whose cells say their
    column's title."""
    body = [
        element("tr", *(_cell(column, cell) for column, cell in zip(columns, row, strict=True)), class_=of_row)
        for row, of_row in zip(rows, _classes(marked), strict=False)
    ]
    head = element("tr", *(element("th", column.title, class_=column.kind, scope="col") for column in columns))
    told = element("caption", caption) if caption else ""
    wide = "wide" if len(columns) > _MANY else ""
    whole = element("table", told, element("thead", head), element("tbody", *body), class_=wide)
    return element("div", whole, class_="scroll")


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Terms and what they are; a pair without a value is left out."""
    return element("dl", *(element("div", element("dt", term), element("dd", value)) for term, value in pairs if value))


def items(entries: Iterable[str], class_: str = "") -> Html:
    return element("ul", *(element("li", entry) for entry in entries), class_=class_)


def bar(share: float, of: float = 0.0, class_: str = "bar") -> Html:
    """A bar of `share` (0..1) of its cell, on a paler one of `of`."""
    whole = element("i", style=f"width:{_clipped(of)}%", class_="whole") if of else ""
    return element("span", whole, element("i", style=f"width:{_clipped(share)}%"), class_=class_, aria_hidden="true")


def _cell(column: Column, content: str) -> Html:
    return element("td", element("div", content), class_=column.kind, data_title=column.title)


def _classes(marked: Sequence[str]) -> Iterable[str]:
    yield from marked
    while True:
        yield ""


def _clipped(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}"
