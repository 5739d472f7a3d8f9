"""The one exception of the client: the contract's error body, and what was tried before giving up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from contracts import headers
from contracts.decoding import UNREADABLE
from contracts.errors import ErrorBody, FoothillError

SOURCE = "client"
_CODES = {
    413: "body_too_large",
    429: "rate_limited",
    502: "upstream_failed",
    503: "unavailable",
    504: "deadline_exceeded",
}


class RequestError(FoothillError):
    """A request without an answer. Fields are those of the error body, with the HTTP status (0: none came).

    `tried` are the base URLs asked, in order. `source` is the part that refused, or `client` when nobody answered.
    """

    def __init__(
        self, error: ErrorBody, *, status: int, retry_after_s: float | None = None, tried: tuple[str, ...] = ()
    ) -> None:
        super().__init__(error.code, error.message, source=error.source, retry_after_s=retry_after_s)
        self.error = error
        self.request_id = error.request_id
        self.tried = tried
        self._status = status

    @property
    def status(self) -> int:
        return self._status

    @property
    def retryable(self) -> bool:
        return self.error.retryable

    def after(self, tried: tuple[str, ...]) -> RequestError:
        """The same failure, with the base URLs asked."""
        return RequestError(self.error, status=self._status, retry_after_s=self.retry_after_s, tried=tried)

    def __str__(self) -> str:
        asked = f"; asked {', '.join(self.tried)}" if self.tried else ""
        return f"{self.code}: {self.message} ({self.source}, request {self.request_id}{asked})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.error, self._status, self.retry_after_s, self.tried))


def _rebuild(error: ErrorBody, status: int, retry_after_s: float | None, tried: tuple[str, ...]) -> RequestError:
    return RequestError(error, status=status, retry_after_s=retry_after_s, tried=tried)


def read_failure(status: int, answered: Mapping[str, str], body: bytes, *, url: str, request_id: str) -> RequestError:
    """The failure that an HTTP answer of another status than 200 states; `answered` is case-insensitive.

    Whatever stands between client and node may answer with a body of its own, which is then quoted.
    """
    try:
        error = msgspec.json.decode(body, type=ErrorBody)
    except UNREADABLE:
        error = _foreign(status, body, url, answered.get(headers.REQUEST_ID, request_id))
    return RequestError(error, status=status, retry_after_s=_seconds(answered.get("Retry-After")))


def nobody_answered(code: str, message: str, *, request_id: str, tried: tuple[str, ...] = ()) -> RequestError:
    """The failure of the client's own finding: unreachable, or out of time."""
    error = ErrorBody(code=code, message=message, source=SOURCE, retryable=True, request_id=request_id)
    return RequestError(error, status=0, tried=tried)


@contextmanager
def reading(request_id: str) -> Iterator[None]:
    """Turns what an unreadable body raises into the client's own exception."""
    try:
        yield
    except (ValueError, *UNREADABLE) as error:
        message = f"The answer cannot be read: {error}. Client and server may be of different versions."
        raise unreadable(message, request_id=request_id) from error


def unreadable(message: str, *, request_id: str) -> RequestError:
    """The failure of an answer that is no Foothill answer although its status says success."""
    error = ErrorBody(code="upstream_failed", message=message, source=SOURCE, retryable=False, request_id=request_id)
    return RequestError(error, status=200)


def _foreign(status: int, body: bytes, url: str, request_id: str) -> ErrorBody:
    quoted = body[:120].decode("utf-8", "replace").strip()
    code = _CODES.get(status, "internal" if status >= 500 else "bad_request")
    message = (
        f"{url} answered HTTP {status} without Foothill's error body: {quoted!r}. Check that this URL is Foothill's."
    )
    retryable = status in (429, 502, 503, 504)
    return ErrorBody(code=code, message=message, source=SOURCE, retryable=retryable, request_id=request_id)


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds; the date form is not used by Foothill and reads as none."""
    return float(value) if value is not None and value.strip().isdigit() else None
