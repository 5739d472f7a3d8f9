"""Why a source gives no pictures: in words for people, and without a secret."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Kind = Literal["lost", "denied", "ended"]


class Trouble(Exception):  # noqa: N818 - the camera may be well again in a moment
    """A source ends with one. `kind` says what to do about it: try again soon, try again later, or not at all."""

    def __init__(self, kind: Kind, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why


def without(secrets: Iterable[str], text: str) -> str:
    """`text` with every secret taken out, such as the password in an address that FFmpeg repeats."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text
