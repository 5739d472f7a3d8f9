"""What every section of the page is made of."""

from __future__ import annotations

from collections.abc import Sequence

from model_compiler.reporting.findings import Absent, NotMeasured
from model_compiler.reporting.markup import Html, element, items, join, paragraph


def section(key: str, title: str, *content: str) -> Html:
    """`key` is what the page's contents point to."""
    return element("section", element("h2", title), *content, id=key)


def part(title: str, *content: str) -> Html:
    """A part of a section."""
    return element("div", element("h3", title), *content, class_="part")


def figure(drawn: Html, title: str, shows: str) -> Html:
    """A picture with what one sees in it."""
    return element(
        "figure", drawn, element("figcaption", element("b", title if title.endswith("?") else f"{title}."), " ", shows)
    )


def stands(what: Absent) -> str:
    return "not measured" if isinstance(what, NotMeasured) else "not done"


def absent(what: Absent, about: str = "") -> Html:
    """ "Not measured: why"."""
    said = f"{about}: {stands(what)}. " if about else f"{stands(what).capitalize()}. "
    return paragraph(element("b", said), what.why, class_="absent")


def loses(said: Sequence[str]) -> Html:
    """Where the compilation loses, which every report says as plainly as where it wins."""
    if not said:
        return Html()
    title = element("b", "Where this loses. ")
    told = paragraph(title, said[0]) if len(said) == 1 else join((paragraph(title), items(said)))
    return element("div", told, class_="loses")


def folded(title: str, content: Html, *, opened: bool) -> Html:
    """A long table, which opens when it is asked for."""
    return element("details", element("summary", title), content, open="open" if opened else "")
