"""What is no HTTP at all: answered with the contract's error body like every other mistake, and not worth a log line.

aiohttp answers such bytes below its applications and middlewares, in plain text, and logs each with a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from contracts.errors import FoothillError
from runtime.links.http.date import HttpDate
from runtime.links.http.errors import error_response
from runtime.links.http.hot_connection import HotConnection
from runtime.links.http.hot_routes import HOT_ROUTES, HotRoutes
from runtime.links.http.outbox import Outbox
from runtime.links.http.request_ids import RequestIds
from runtime.links.process.alarm import Alarm

_SHOWN = 200
_BUFFER_BYTES = 1 << 16
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
        self.hot = hot
        self.date = HttpDate()
        self.ids = RequestIds()
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.outbox = Outbox()
        self.lingering: Alarm[asyncio.Transport] = Alarm(lambda transport: transport.close())

    def __call__(self) -> Any:
        protocol = _Protocol(self, loop=self._loop, **self._kwargs)
        return protocol if self.hot is None else _Wire(protocol)


class _Wire(asyncio.BufferedProtocol):
    """Says where the bytes from a connection go. An asyncio.Protocol cannot: it gets each piece as an object of its
    own, and those of a large body would be copied once more to be joined."""

    def __init__(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self._hot: HotConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)
        self._hot = self._protocol.hot

    def get_buffer(self, sizehint: int) -> memoryview:
        assert self._hot is not None
        return self._hot.room()

    def buffer_updated(self, nbytes: int) -> None:
        assert self._hot is not None
        data = self._hot.filled(nbytes)
        if data:
            self._protocol.data_received(data)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class _Protocol(web.RequestHandler):
    """aiohttp's, behind a HotConnection where the application has hot routes.

    What it takes over of aiohttp's state is for the rules that hold for a whole connection: it is closed after a long
    idle time, and a shutdown waits for the answer under way.
    """

    __slots__ = ("_server", "_source", "hot")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._source = server.source
        self._server = server
        self.hot: HotConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.hot is not None:
            self.hot = HotConnection(
                self._server.hot,
                cast(asyncio.Transport, transport),
                self._server.date,
                self._server.ids,
                self._server.buffer,
                self._server.lingering,
                self._server.outbox,
                theirs=super().data_received,
                busy=self._note_busy,
                loop=self._loop,
            )

    def data_received(self, data: bytes) -> None:
        if self.hot is None or not data:
            super().data_received(data)
        elif not (self._force_close or self._close) or self.hot.answering:
            # Who is answered while the server stops has still to send the rest of its body.
            self.hot.received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if self.hot is not None and finished[0].keep_alive:
            # Not before aiohttp has noted for itself that this request is over.
            self._loop.call_soon(self._go_on, self.hot)
        return finished

    def _go_on(self, hot: HotConnection) -> None:
        if not (self._force_close or self._close):
            hot.their_answer_ended()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.hot is not None:
            self.hot.lost()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.hot is not None:
            self.hot.may_write(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.hot is not None:
            self.hot.may_write(True)

    def _note_busy(self, busy: bool) -> None:
        self._request_in_progress = busy
        if busy:
            self._next_keepalive_close_time = self._loop.time() + self.keepalive_timeout
            return
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self._close and self.transport is not None:
            self._server.outbox.flush()
            self.transport.close()

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
