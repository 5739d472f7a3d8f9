"""The heads of answers that differ in the values of a few headers alone: read once, and matched from then on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from multidict import CIMultiDict

from contracts import headers as names
from runtime.links.http.bulk import Buffer

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
_MOST_FORMS, _MOST_HEAD_BYTES = 8, 4096
_FIRST_READ = 16
_VARIED = {name.lower(): name for name in VARIED}
_NUMBER, _VISIBLE = b"([0-9]{1,9})", b"([!-~][ -~]{0,511})(?<! )"
_VALUE = re.compile(_VISIBLE)
_LENGTH = "Content-Length"


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
                parts.append(re.escape(name) + b": " + (_NUMBER if varied == _LENGTH else _VISIBLE))
            elif told:
                parts.append(re.escape(line))
            else:
                start.append(line)
        self.start = b"\r\n".join([*start, b""])
        self.starts = len(self.start)
        self.match = re.compile(b"\r\n".join(parts) + b"\r\n\r\n(.*)", re.DOTALL).match
        self.at = {name: number for number, name in enumerate(told)}
        self.length_at = self.at[_LENGTH]
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


class Forms:
    """The forms of one upstream's answers, the last one that was met first."""

    def __init__(self) -> None:
        self._forms: list[Form] = []
        self._read = 0

    def reply(self, data: Buffer, size: int) -> KnownReply | None:
        """Where the first `size` bytes are exactly one answer of a known form."""
        for form in self._forms:
            found = form.match(data.bytes, form.starts, size) if data.bytes.startswith(form.start) else None
            if found is None:
                continue
            values = found.groups()
            if len(values[-1]) != int(values[form.length_at]):
                return None
            if form is not self._forms[0]:
                self._forms.remove(form)
                self._forms.insert(0, form)
            return KnownReply(form, values, values[-1])
        return None

    def learn(self, head: bytes, status: int, headers: CIMultiDict[str]) -> None:
        """Takes a head that was read whole, of an answer with a declared length, after which its connection stays.

        Who says something new in every head is learned from ever more rarely.
        """
        self._read += 1
        if self._read > _FIRST_READ and self._read & (self._read - 1):
            return
        once = len({name.lower() for name in headers}) == len(headers)
        if status == KnownReply.status and once and len(head) <= _MOST_HEAD_BYTES and _is_plain(head, headers):
            self._forms = [Form(head, headers), *self._forms[: _MOST_FORMS - 1]]


def _is_plain(head: bytes, headers: Mapping[str, str]) -> bool:
    """Whether each line is plainly `Name: value`, as it was parsed."""
    lines = head[: -len(b"\r\n\r\n")].split(b"\r\n")[1:]
    if len(lines) != len(headers) or _LENGTH not in headers:
        return False
    told = [line.partition(b": ") for line in lines]
    return all(
        _VALUE.fullmatch(value) and headers.get(name.decode("latin-1")) == value.decode() for name, _, value in told
    )
