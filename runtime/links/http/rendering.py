"""The head of an answer as it goes over the wire."""

from __future__ import annotations

from http import HTTPStatus

from runtime.links.http.exchanges import Outgoing, header_lines

_FIRST_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}


def rendered(answer: Outgoing, date: str) -> bytes:
    """Raises FoothillError `internal`, as `header_lines`."""
    size = len(answer.body) if answer.spool is None else len(answer.spool)
    own = header_lines(answer.headers) if answer.headers else ""
    first = _FIRST_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} \r\n"
    lines = f"{first}{answer.fixed.lines}{answer.lines}{own}Date: {date}\r\nContent-Length: {size}\r\n\r\n"
    return lines.encode("utf-8", "surrogateescape")
