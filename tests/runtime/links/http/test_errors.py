"""Whatever goes wrong in a handler, the caller gets the contract's error body and a request id."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web

from contracts.errors import ErrorBody, FoothillError
from runtime.links.http.errors import error_middleware, request_id_of
from runtime.links.http.serve import start_app


async def answer(request: web.Request) -> web.Response:
    return web.json_response({"id": request_id_of(request), "again": request_id_of(request)})


async def overloaded(request: web.Request) -> web.Response:
    raise FoothillError("overloaded", "The queue is full. Try later.", retry_after_s=1.2)


async def from_upstream(request: web.Request) -> web.Response:
    raise FoothillError("bad_tensor", "x must be FP32.", source="edge-fra")


async def broken(request: web.Request) -> web.Response:
    raise RuntimeError("a secret of the inside")


async def read(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def moved(request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("/answer")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application(middlewares=[error_middleware("router")], client_max_size=100)
    for handler in (answer, overloaded, from_upstream, broken, moved):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_post("/read", read)
    runner, url = await start_app(app, "127.0.0.1", 0, name="test", drain_s=0.1)
    yield url
    await runner.cleanup()


async def asked(
    url: str, path: str, *, method: str = "GET", sent: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[aiohttp.ClientResponse, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url + path, headers=sent, data=body, allow_redirects=False) as response,
    ):
        return response, await response.read()


def error_of(response: aiohttp.ClientResponse, body: bytes) -> ErrorBody:
    error = msgspec.json.decode(body, type=ErrorBody)
    assert response.headers["Foothill-Request-Id"] == error.request_id
    return error


async def test_a_request_has_one_id_and_the_answer_carries_it(url: str) -> None:
    response, body = await asked(url, "/answer")
    known = msgspec.json.decode(body)
    assert known["id"] == known["again"] == response.headers["Foothill-Request-Id"]


async def test_a_callers_id_in_form_is_kept_and_any_other_replaced(url: str) -> None:
    kept, _ = await asked(url, "/answer", sent={"Foothill-Request-Id": "abc-1"})
    assert kept.headers["Foothill-Request-Id"] == "abc-1"
    replaced, _ = await asked(url, "/answer", sent={"Foothill-Request-Id": "a b"})
    assert len(replaced.headers["Foothill-Request-Id"]) == 32


async def test_an_error_names_code_source_retry_and_wait(url: str) -> None:
    response, body = await asked(url, "/overloaded")
    error = error_of(response, body)
    assert (response.status, response.headers["Retry-After"]) == (503, "2")
    assert (error.code, error.source, error.retryable) == ("overloaded", "router", True)


async def test_an_upstreams_error_keeps_its_source(url: str) -> None:
    response, body = await asked(url, "/from_upstream")
    assert (response.status, error_of(response, body).source) == (400, "edge-fra")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/answer", 405, "method_not_allowed"),
        ("POST", "/read", 413, "body_too_large"),
    ],
)
async def test_the_servers_own_refusals_have_the_contracts_body(
    url: str, method: str, path: str, status: int, code: str
) -> None:
    response, body = await asked(url, path, method=method, body=b"x" * 101 if method == "POST" else None)
    assert (response.status, error_of(response, body).code) == (status, code)
    assert ("Allow" in response.headers) == (status == 405)


async def test_an_unexpected_failure_is_logged_and_tells_nothing_of_the_inside(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response, body = await asked(url, "/broken")
    error = error_of(response, body)
    assert (response.status, error.code) == (500, "internal")
    assert "secret" not in error.message
    assert error.request_id in caplog.text
    assert "a secret of the inside" in caplog.text


async def test_a_redirect_passes(url: str) -> None:
    response, _ = await asked(url, "/moved")
    assert (response.status, response.headers["Location"]) == (307, "/answer")
    assert "Foothill-Request-Id" in response.headers
