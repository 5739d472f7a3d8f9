"""New request ids: nobody can guess one from others, and it knows of no other."""

from __future__ import annotations

import os
from typing import Final

_AT_ONCE = 256
_BYTES: Final = 16


class RequestIds:
    """128 random bits each, as 32 hex digits. The kernel is asked for many at once: each question is a system call."""

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0

    def new(self) -> str:
        if self._at == len(self._hex):
            self._hex, self._at = os.urandom(_BYTES * _AT_ONCE).hex(), 0
        begin, self._at = self._at, self._at + 2 * _BYTES
        return self._hex[begin : self._at]
