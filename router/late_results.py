"""`GET /v1/results/{request_id}`: a late answer as it is, or as an event when it comes."""

from __future__ import annotations

import asyncio
import base64
import contextlib

import msgspec
from aiohttp import web

from contracts import headers
from contracts.errors import FoothillError
from router.results import Result, Results
from runtime.links.access.grants import grant_of
from runtime.links.escalation.late import waiting_answer
from runtime.links.http.upstream import Answer
from runtime.links.process.within import within

EVENTS = "text/event-stream"
BEAT_S = 10.0


class LateResults:
    """A caller sees its own tenant's requests only."""

    def __init__(self, results: Results, *, beat_s: float = BEAT_S) -> None:
        self._results = results
        self._beat_s = beat_s

    async def result(self, request: web.Request) -> web.StreamResponse:
        grant, request_id = grant_of(request), request.match_info["request_id"]
        found = self._results.find(grant.tenant, request_id)
        if found is None or (found.ended.is_set() and found.answer is None):
            raise FoothillError(
                "not_found",
                f"No late answer is here or on its way for request {request_id[:80]!r}: none was promised "
                f"({headers.LATE}: spooled), the cloud refused it, or it is too old. Ask again.",
            )
        grant.check_model(found.waiting.model)
        if EVENTS in request.headers.get("Accept", ""):
            return await self._events(request, found)
        answer = found.answer or waiting_answer(found.waiting)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _events(self, request: web.Request, found: Result) -> web.StreamResponse:
        """Server-sent events (WHATWG HTML, 9.2): one `result` or `gone`, and comments until then."""
        response = web.StreamResponse(headers={"Content-Type": EVENTS, "Cache-Control": "no-store"})
        response.headers[headers.REQUEST_ID] = found.waiting.request_id
        await response.prepare(request)
        while not found.ended.is_set():
            await response.write(b": waiting\n\n")
            try:
                await within(found.ended.wait(), self._beat_s)
            except asyncio.TimeoutError:
                continue
        await response.write(_event(found))
        await response.write_eof()
        return response


def _event(found: Result) -> bytes:
    if found.answer is None:
        return b"event: gone\ndata: %b\n\n" % msgspec.json.encode({"request_id": found.waiting.request_id})
    told = {"status": found.answer.status, "headers": dict(found.answer.headers), **_body(found.answer)}
    return b"event: result\ndata: %b\n\n" % msgspec.json.encode(told)


def _body(answer: Answer) -> dict[str, object]:
    """JSON as it is, on one line, for a line break would end the data; anything else as base64."""
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        with contextlib.suppress(msgspec.DecodeError):
            return {"body": msgspec.Raw(msgspec.json.format(answer.body, indent=-1))}
    return {"body_base64": base64.b64encode(answer.body).decode()}
