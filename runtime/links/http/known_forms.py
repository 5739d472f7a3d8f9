"""Answers whose heads read like others before them: those are read once, and matched from then on."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict

from runtime.links.http.bulk import Buffer
from runtime.links.http.reply_forms import LENGTH, VALUE, Form, KnownReply

_MOST_FORMS, _MOST_HEAD_BYTES = 8, 4096
_FIRST_READ = 16


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
    if len(lines) != len(headers) or LENGTH not in headers:
        return False
    told = [line.partition(b": ") for line in lines]
    return all(
        VALUE.fullmatch(value) and headers.get(name.decode("latin-1")) == value.decode() for name, _, value in told
    )
