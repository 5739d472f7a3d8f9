"""The head of an answer, and times, as they go over the wire."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from contracts.headers import MAX_DEADLINE_MS
from runtime.links.http.exchanges import Outgoing, header_lines

_DIGITS: Final = "%09d"
_FIRST_LINES: Final = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}


def rendered(answer: Outgoing, date: str) -> bytes:
    """Raises FoothillError `internal`, as `header_lines`."""
    size = len(answer.body) if answer.spool is None else len(answer.spool)
    own = header_lines(answer.headers) if answer.headers else ""
    first = _FIRST_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} \r\n"
    lines = f"{first}{answer.fixed.lines}{answer.lines}{own}Date: {date}\r\nContent-Length: {size}\r\n\r\n"
    return lines.encode("utf-8", "surrogateescape")


def milliseconds(left: float) -> str:
    """Always as many digits: requests whose heads are of one length are read faster."""
    bounded = left if 1.0 <= left <= MAX_DEADLINE_MS else min(MAX_DEADLINE_MS, max(1.0, left))
    return _DIGITS % bounded
