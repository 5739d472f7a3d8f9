"""What goes back to the caller: JSON of the router's own, or an upstream's answer under this request's id."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from aiohttp import web

from contracts import headers
from contracts.decoding import UNREADABLE
from contracts.errors import KINDS, ErrorBody, FoothillError
from contracts.timing import format_server_timing
from runtime.links.escalation.holder import Settled, outward_headers
from runtime.links.http.exchanges import Body, Outgoing
from runtime.links.http.upstream import Answer

T = TypeVar("T")


def json_answer(content: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


def settled_answer(settled: Settled, phases_ms: dict[str, float], request_id: str) -> Outgoing:
    """A success with all that is to be told of it, or a refusal."""
    if settled.answer.status >= 400:
        answer = relayed(settled.answer, request_id)
        answer.headers[headers.REASON] = settled.reason
    else:
        answer = Outgoing(settled.answer.status, outward_headers(settled), settled.answer.body)
        answer.spool = settled.answer.spool
        answer.headers[headers.REQUEST_ID] = request_id
    answer.headers[headers.SERVER_TIMING] = format_server_timing(phases_ms)
    return answer


def relayed_answer(answer: Answer, request_id: str) -> web.Response:
    """As `relayed`, of a handler of aiohttp's."""
    sent = relayed(answer, request_id)
    return web.Response(status=sent.status, body=sent.body, headers=sent.headers)


def relayed(answer: Answer, request_id: str) -> Outgoing:
    """An upstream's answer as it is, but that a failure always has the contract's body."""
    sent = headers.relayed(answer.headers, headers.RELAYED_OUT)
    body = answer.body
    if answer.status >= 400:
        body = _error_body(answer, request_id)
        sent = {name: value for name, value in sent.items() if not name.startswith(("Content-", "Inference-"))}
        sent["Content-Type"] = "application/json"
    sent[headers.REQUEST_ID] = request_id
    return Outgoing(answer.status, sent, body)


def decoded(body: Body, kind: type[T]) -> T:
    """JSON as `kind`. Raises FoothillError `bad_request`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        name = getattr(kind, "__name__", str(kind))
        raise FoothillError("bad_request", f"The body is no {name}: {error}. See docs/api.md.") from error


def understood(answer: Answer, kind: type[T]) -> T:
    """What an upstream said, as `kind`. Raises FoothillError `upstream_failed`."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except UNREADABLE as error:
        source = answer.headers.get(headers.NODE, "upstream")
        raise FoothillError(
            "upstream_failed", f"{source} answered something else than the protocol says: {error}.", source=source
        ) from error


def _error_body(answer: Answer, request_id: str) -> bytes:
    try:
        told = msgspec.json.decode(answer.body, type=ErrorBody)
    except UNREADABLE:
        told = _unexplained(answer, request_id)
    return msgspec.json.encode(msgspec.structs.replace(told, request_id=request_id))


def _unexplained(answer: Answer, request_id: str) -> ErrorBody:
    code = next((code for code, kind in KINDS.items() if kind.status == answer.status), "upstream_failed")
    source = answer.headers.get(headers.NODE, "upstream")
    error = FoothillError(code, f"{source} answered HTTP {answer.status} without saying why.")
    return error.body(source=source, request_id=request_id)
