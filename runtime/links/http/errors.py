"""Errors at the HTTP rim: every failure becomes the contract's body, under a request id."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from contracts import headers
from contracts.errors import FoothillError
from runtime.links.http.exchanges import Outgoing

log = logging.getLogger(__name__)

_REQUEST_ID = web.RequestKey("request_id", str)
_CODES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_WHAT_TO_DO = {
    "not_found": "Check the path; docs/api.md lists the routes",
    "method_not_allowed": "Use a method named in the Allow header",
    "body_too_large": "Send a smaller body, or raise max_body_bytes of this server",
}


def request_id_of(request: web.Request) -> str:
    """The request's id: the caller's when it is in form, else a new one, the same at every call."""
    known = request.get(_REQUEST_ID)
    if known is None:
        known = callers_id(request.headers) or uuid.uuid4().hex
        request[_REQUEST_ID] = known
    return known


def error_response(error: FoothillError, *, source: str, request_id: str) -> web.Response:
    """The JSON body of `error`, with `Retry-After` in whole seconds where the error names one or asks for one."""
    refusal = refused(error, source=source, request_id=request_id)
    return web.Response(status=refusal.status, body=refusal.body, headers=refusal.headers)


def refused(error: FoothillError, *, source: str, request_id: str) -> Outgoing:
    """As `error_response`, for any protocol."""
    told = error.body(source=source, request_id=request_id)
    given = {
        "Content-Type": "application/json; charset=utf-8",
        headers.REQUEST_ID: request_id,
        headers.REASON: error.code,
    }
    if error.retry_after_s is not None or error.status in (429, 503):
        given["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    body = msgspec.json.encode(msgspec.structs.replace(told, message=_printable(told.message)))
    return Outgoing(error.status, given, body)


def hidden(source: str, request_id: str) -> FoothillError:
    """What a caller is told of a defect."""
    return FoothillError("internal", f"The {source} failed; its log tells more under {request_id}.")


def error_middleware(source: str) -> Middleware:
    """Turns whatever a handler raises into `error_response`, and puts the request id on every answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request_id_of(request)
        try:
            answer = await handler(request)
        except FoothillError as error:
            return error_response(error, source=source, request_id=request_id)
        except web.RequestPayloadError as error:
            broken = FoothillError(
                "bad_request", f"The body breaks off or is encoded wrongly ({error}). Send it again."
            )
            return error_response(broken, source=source, request_id=request_id)
        except web.HTTPException as error:
            if error.status < 400:
                error.headers[headers.REQUEST_ID] = request_id
                raise
            return _from_http(error, source, request_id)
        except Exception:
            log.exception("%s %s failed, request id %s", request.method, request.path, request_id)
            return error_response(hidden(source, request_id), source=source, request_id=request_id)
        if not answer.prepared:
            answer.headers.setdefault(headers.REQUEST_ID, request_id)
        return answer

    return middleware


def _printable(message: str) -> str:
    """Bytes of a request that were no text reach messages as lone surrogates, which JSON cannot carry."""
    return message.encode("utf-8", "replace").decode()


def _from_http(error: web.HTTPException, source: str, request_id: str) -> web.Response:
    code = _CODES.get(error.status, "internal" if error.status >= 500 else "bad_request")
    advice = _WHAT_TO_DO.get(code, "Correct the request")
    answer = error_response(
        FoothillError(code, f"{error.text or error.reason}. {advice}."), source=source, request_id=request_id
    )
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer


def callers_id(sent: Mapping[str, str]) -> str:
    """The id that a caller has sent, or "" where it is not in form."""
    if headers.REQUEST_ID not in sent:
        return ""
    try:
        return headers.parse_request_id(sent)
    except FoothillError:
        return ""
