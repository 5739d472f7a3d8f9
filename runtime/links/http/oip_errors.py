"""Errors under `/v2` as clients of the Open Inference Protocol expect them."""

from __future__ import annotations

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from contracts.decoding import UNREADABLE
from contracts.errors import ErrorBody
from contracts.oip import error_body


@web.middleware
async def oip_error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Adds `error` to the error body of routes under `/v2`. Stands outside `error_middleware`."""
    answer = await handler(request)
    if answer.status >= 400 and _is_oip(request.path) and isinstance(answer, web.Response):
        body = answer.body
        answer.body = with_error(body) if isinstance(body, bytes) else body
    return answer


def with_error(body: bytes) -> bytes:
    """An error body with the protocol's `error` in it. A relayed body of another form stays as it is."""
    try:
        return error_body(msgspec.json.decode(body, type=ErrorBody))
    except UNREADABLE:
        return body


def _is_oip(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")
