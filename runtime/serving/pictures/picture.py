"""What all kinds of pictures have in common: a size, and the words in which they are refused."""

from __future__ import annotations

from typing import NamedTuple

from contracts.errors import FoothillError


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


def bad(what: str) -> FoothillError:
    return FoothillError("bad_image", f"The picture is refused: {what}.".replace("?.", "?"))
