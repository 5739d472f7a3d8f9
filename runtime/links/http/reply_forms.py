"""The heads of answers that differ in the values of a few headers alone, and answers with such heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from multidict import CIMultiDict

from contracts import headers as names

VARIED = (
    names.REQUEST_ID,
    names.CONFIDENCE,
    names.SERVER_TIMING,
    names.LOAD,
    names.ANSWER,
    "Date",
    "Content-Length",
)
"""What servers say anew with every answer."""
_VARIED = {name.lower(): name for name in VARIED}
_NUMBER, _VISIBLE = b"([0-9]{1,9})", b"([!-~][ -~]{0,511})(?<! )"
VALUE = re.compile(_VISIBLE)
LENGTH = "Content-Length"


class Form:
    """What such heads have in common: how they `start`, and what they `match` behind that, from `starts` on; `fixed`
    are the headers that never differ, `at` says which of the values is a header's, `length_at` that of the length; the
    last value is the body. `notes` is for whoever reads answers of this form: what follows from it."""

    __slots__ = ("at", "fixed", "length_at", "match", "notes", "start", "starts")

    def __init__(self, head: bytes, headers: Mapping[str, str]) -> None:
        start, parts, told = [], [], []
        for line in head[: -len(b"\r\n\r\n")].split(b"\r\n"):
            name = line.partition(b": ")[0]
            varied = _VARIED.get(name.decode().lower())
            if varied is not None:
                told.append(varied)
                parts.append(re.escape(name) + b": " + (_NUMBER if varied == LENGTH else _VISIBLE))
            elif told:
                parts.append(re.escape(line))
            else:
                start.append(line)
        self.start = b"\r\n".join([*start, b""])
        self.starts = len(self.start)
        self.match = re.compile(b"\r\n".join(parts) + b"\r\n\r\n(.*)", re.DOTALL).match
        self.at = {name: number for number, name in enumerate(told)}
        self.length_at = self.at[LENGTH]
        self.fixed = {name: value for name, value in headers.items() if name.lower() not in _VARIED}
        self.notes: dict[Any, Any] = {}


class KnownReply(msgspec.Struct, eq=False):
    """One whole answer of a known form, status 200; as `Reply` to whoever reads it."""

    form: Form
    values: tuple[bytes, ...]
    body: bytes
    status: ClassVar[int] = 200
    begun: ClassVar[bool] = True

    @property
    def headers(self) -> CIMultiDict[str]:
        told = CIMultiDict(self.form.fixed)
        for name, at in self.form.at.items():
            told[name] = self.values[at].decode("ascii")
        return told
