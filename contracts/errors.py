"""The one error of every HTTP route: codes as a table, the exception that carries one, the body it becomes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Kind(NamedTuple):
    """What a code means on the wire: HTTP status, and whether the same request may succeed when sent again."""

    status: int
    retryable: bool


KINDS: dict[str, Kind] = {
    "bad_request": Kind(400, False),
    "bad_header": Kind(400, False),
    "bad_image": Kind(400, False),
    "bad_tensor": Kind(400, False),
    "bad_bundle": Kind(400, False),
    "unauthorized": Kind(401, False),
    "ticket_expired": Kind(401, False),
    "forbidden": Kind(403, False),
    "residency_denied": Kind(403, False),
    "not_found": Kind(404, False),
    "model_not_found": Kind(404, False),
    "method_not_allowed": Kind(405, False),
    "conflict": Kind(409, False),
    "body_too_large": Kind(413, False),
    "unsupported_media_type": Kind(415, False),
    "rate_limited": Kind(429, True),
    "internal": Kind(500, False),
    "upstream_failed": Kind(502, True),
    "overloaded": Kind(503, True),
    "unavailable": Kind(503, True),
    "deadline_exceeded": Kind(504, True),
}
"""Every code of the error body. Adding one is a change of the contract: document it in `docs/api.md`."""


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success.

    `source` names the part that speaks (`router`, `cloud`, `fleet`, or a node's name).
    """

    code: str
    message: str
    source: str
    retryable: bool
    request_id: str


class FoothillError(Exception):
    """An error that a caller may see. `message` says what happened and what to do next.

    `source` is filled in at the rim by the part that answers; an upstream's error keeps the upstream's.
    """

    def __init__(self, code: str, message: str, *, source: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        if code not in KINDS:
            raise ValueError(f"{code!r} is no code of the contract: use one of {', '.join(KINDS)}.")
        self.code = code
        self.message = message
        self.source = source
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        return KINDS[self.code].status

    @property
    def retryable(self) -> bool:
        return KINDS[self.code].retryable

    def body(self, *, source: str, request_id: str) -> ErrorBody:
        return ErrorBody(
            code=self.code,
            message=self.message,
            source=self.source or source,
            retryable=self.retryable,
            request_id=request_id,
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.code, self.message, self.source, self.retry_after_s))


def _rebuild(code: str, message: str, source: str, retry_after_s: float | None) -> FoothillError:
    return FoothillError(code, message, source=source, retry_after_s=retry_after_s)
