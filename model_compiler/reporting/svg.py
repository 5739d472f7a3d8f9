"""A picture as matplotlib draws it, made fit for a page: in its colours and letters, naming nothing outside itself."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from model_compiler.reporting.markup import Html, printable

# Colours that no picture uses for itself stand for the page's own, which differ between light and dark.
INKS = {
    "ink": "#0101a1",
    "muted": "#0101a2",
    "line": "#0101a3",
    "paper": "#0101a4",
    "accent": "#0101a5",
    "blue": "#0101a6",
    "warn": "#0101a7",
    "bad": "#0101a8",
    "soft": "#0101a9",
}
_PAGE = {drawn: f"var(--{ink})" for ink, drawn in INKS.items()}
_COLOUR = re.compile("|".join(INKS.values()))
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_DROPPED = ("metadata", "style", "title")
_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def for_page(drawn: str, prefix: str, told: str) -> Html:
    """`drawn`, a whole SVG file, as an inline element. `prefix` keeps its ids apart from other pictures' on the page;
    `told` says to those who do not see it what it shows."""
    root = ElementTree.fromstring(drawn)
    _adopt(root, prefix, _referenced(root))
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib.update({"role": "img", "aria-label": printable(told)})
    return Html(_without_blanks(ElementTree.tostring(root, encoding="unicode")))


def _adopt(node: ElementTree.Element, prefix: str, referenced: set[str]) -> None:
    for child in list(node):
        if child.tag.rpartition("}")[2] in _DROPPED:
            node.remove(child)
        else:
            _adopt(child, prefix, referenced)
    node.tag = node.tag.removeprefix(_SVG)
    own = node.attrib.pop("id", "")
    if own and own in referenced:
        node.attrib["id"] = prefix + own
    if (target := node.attrib.pop(_HREF, "")) != "":
        node.attrib["href"] = f"#{prefix}{target.removeprefix('#')}"
    for key, value in node.attrib.items():
        node.attrib[key] = _REFERENCE.sub(rf"url(#{prefix}\1)", value)
    if "style" in node.attrib:
        styled = _FONT_FAMILY.sub("", node.attrib["style"])
        node.attrib["style"] = _COLOUR.sub(lambda found: _PAGE[found[0]], styled)
    if "d" in node.attrib:
        node.attrib["d"] = " ".join(node.attrib["d"].split())


def _referenced(root: ElementTree.Element) -> set[str]:
    found: set[str] = set()
    for node in root.iter():
        found.update(name for value in node.attrib.values() for name in _REFERENCE.findall(value))
        found.add(node.attrib.get(_HREF, "#").removeprefix("#"))
    return found


def _without_blanks(written: str) -> str:
    return re.sub(r">\s+<", "><", written).strip()
