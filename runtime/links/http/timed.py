"""`Server-Timing` on every answer, refusals too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from contracts import headers
from contracts.timing import TOTAL, format_server_timing

PHASES_MS = web.RequestKey[Mapping[str, float]]("phases_ms", Mapping)
"""What a handler knows of its phases so far, in ms; it may go on filling it."""
STARTED_S = web.RequestKey("started_s", float)
"""When a request's own time began, where that is later than its arrival: reading a body is the network's time."""


def timing_middleware(clock: Callable[[], float]) -> Middleware:
    """Writes the phases known and the total where the handler has not written them. The outermost middleware.

    `clock` is monotonic, in seconds, and that of the handlers.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        arrived_s = clock()
        answer = await handler(request)
        if not answer.prepared:
            whole_ms = (clock() - request.get(STARTED_S, arrived_s)) * 1000.0
            told = format_server_timing({**request.get(PHASES_MS, {}), TOTAL: whole_ms})
            answer.headers.setdefault(headers.SERVER_TIMING, told)
        return answer

    return middleware
