"""What is no HTTP at all: answered with the contract's error body like every other mistake, and not worth a log line.

aiohttp answers such bytes below its applications and middlewares, in plain text, and logs each with a traceback.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from contracts.errors import FoothillError
from runtime.links.http_errors import error_response

_SHOWN = 200
_CALLERS_OWN = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


class Runner(web.AppRunner):
    """An AppRunner whose connections answer as `source`."""

    __slots__ = ("_source",)

    def __init__(self, app: web.Application, *, source: str, **options: Any) -> None:
        super().__init__(app, logger=_quiet_log(), **options)
        self._source = source

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._source)


class _Server(web.Server):
    """The server that the application made, but for the protocol of its connections."""

    def __init__(self, made: web.Server, source: str) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        self.source = source

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(web.RequestHandler):
    __slots__ = ("_source",)

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._source = server.source

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for bytes that do not parse; a failure of a handler comes here only past `error_middleware`."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = (message or "it does not parse").strip().partition("\n")[0].rstrip(":.")[:_SHOWN]
        error = FoothillError("bad_request", f"The request is not HTTP that this server reads: {reason}. Correct it.")
        answer = error_response(error, source=self._source, request_id=uuid.uuid4().hex)
        answer.force_close()
        return answer


def _quiet_log() -> logging.Logger:
    """aiohttp's own, without the tracebacks of what callers send: whoever can connect could fill the disk with them."""
    log = logging.getLogger("aiohttp.server")
    if _ours not in log.filters:
        log.addFilter(_ours)
    return log


def _ours(record: logging.LogRecord) -> bool:
    failure = record.exc_info[1] if record.exc_info else None
    return not isinstance(failure, _CALLERS_OWN)
