"""What is no HTTP at all: answered with the contract's error body like every other mistake, and not worth a log line.

aiohttp answers such bytes below its applications and middlewares, in plain text, and logs each with a traceback.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from contracts.errors import FoothillError
from runtime.links.http.errors import error_response
from runtime.links.http.hot_connection import CONTINUE, HotConnection, Shared
from runtime.links.http.hot_routes import HOT_ROUTES, HotRoutes

_SHOWN = 200
_CALLERS_OWN = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


class Runner(web.AppRunner):
    """An AppRunner whose connections answer as `source`."""

    __slots__ = ("_source",)

    def __init__(self, app: web.Application, *, source: str, **options: Any) -> None:
        super().__init__(app, logger=_quiet_log(), **options)
        self._source = source

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._source, self.app.get(HOT_ROUTES))


class _Server(web.Server):
    """The server that the application made, but for the protocol of its connections."""

    def __init__(self, made: web.Server, source: str, hot: HotRoutes | None) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        self.source = source
        self._hot = hot
        self._shared = Shared()

    def __call__(self) -> Any:
        protocol = _Protocol(self, loop=self._loop, **self._kwargs)
        if self._hot is None:
            return protocol
        protocol.hot = HotConnection(self._hot, self._shared, protocol, self._loop)
        return protocol.hot


class _Protocol(web.RequestHandler):
    """aiohttp's, behind a HotConnection where the application has hot routes.

    What it takes over of aiohttp's state is for the rules that hold for a whole connection: it is closed after a long
    idle time, and a shutdown waits for the answer under way.
    """

    __slots__ = ("_source", "hot")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._source = server.source
        self.hot: HotConnection | None = None

    @property
    def answering(self) -> bool:
        if self._request_in_progress:
            asked = self._current_request
            return asked is None or asked.content.is_eof()
        return bool(self._messages) and self._messages[0][1].is_eof()

    @property
    def awaited(self) -> bool:
        """As far as aiohttp has it: who is at work on a request it shows, and of one that is answered nothing."""
        if not self.answering:
            return False
        asked = self._current_request
        if asked is not None:
            return _can_be_told(asked)
        return self._request_in_progress or getattr(self._messages[0][0], "version", HttpVersion11) >= HttpVersion11

    def probe(self) -> None:
        asked = self._current_request
        if asked is not None and self.transport is not None and _can_be_told(asked):
            self.transport.write(CONTINUE)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if self.hot is not None and finished[0].keep_alive:
            # Not before aiohttp has noted for itself that this request is over.
            self._loop.call_soon(self._go_on, self.hot)
        return finished

    def _go_on(self, hot: HotConnection) -> None:
        if not hot.ends:
            hot.their_answer_ended()

    def close(self) -> None:
        super().close()
        self._end()

    def force_close(self) -> None:
        super().force_close()
        self._end()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Waits for the answer under way, whoever gives it."""
        self._end()
        if self.hot is not None and self.hot.answering:
            self._request_in_progress = True
        await super().shutdown(timeout)

    def _end(self) -> None:
        if self.hot is not None:
            self.hot.ends = True

    def note_free(self) -> None:
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self._close and self.transport is not None:
            self.transport.close()

    def _process_keepalive(self) -> None:
        """A hot request is use of its connection."""
        if self.hot is not None:
            idle_s = 0.0 if self.hot.answering else time.monotonic() - self.hot.used_s
            closes_s = self._loop.time() + self.keepalive_timeout - idle_s
            self._next_keepalive_close_time = max(self._next_keepalive_close_time, closes_s)
        super()._process_keepalive()

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


def _can_be_told(asked: web.BaseRequest) -> bool:
    """Whether its caller reads a 1xx answer (not in HTTP/1.0), and has none yet."""
    return asked.version >= HttpVersion11 and not asked.writer.output_size


def _quiet_log() -> logging.Logger:
    """aiohttp's own, without the tracebacks of what callers send: whoever can connect could fill the disk with them."""
    log = logging.getLogger("aiohttp.server")
    if _ours not in log.filters:
        log.addFilter(_ours)
    return log


def _ours(record: logging.LogRecord) -> bool:
    failure = record.exc_info[1] if record.exc_info else None
    return not isinstance(failure, _CALLERS_OWN)
