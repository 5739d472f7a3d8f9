from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from contracts.errors import FoothillError
from runtime.links.http.errors import error_middleware
from runtime.links.http.oip_errors import oip_error_middleware
from runtime.links.http.serve import start_app


async def fail(_: web.Request) -> web.StreamResponse:
    raise FoothillError("bad_tensor", "Tensor 'x' is wrong.")


async def relay(_: web.Request) -> web.StreamResponse:
    return web.Response(status=502, body=b"<html>not ours</html>")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v2/fail", 400, "Tensor 'x' is wrong."),
        ("/v1/fail", 400, None),
        ("/v2/unknown", 404, "404: Not Found. Check the path; docs/api.md lists the routes."),
        ("/v22", 404, None),
    ],
)
async def test_errors_of_the_protocols_routes_alone_carry_its_field(path: str, status: int, error: str | None) -> None:
    app = web.Application(middlewares=[oip_error_middleware, error_middleware("here")])
    app.add_routes([web.get("/v1/fail", fail), web.get("/v2/fail", fail)])
    runner, url = await start_app(app, "127.0.0.1", 0, name="here", drain_s=0.1)
    async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
        told = await answer.json()
    await runner.cleanup()
    assert (answer.status, told.get("error"), told["source"]) == (status, error, "here")


async def test_a_relayed_error_of_another_form_stays_as_it_is() -> None:
    app = web.Application(middlewares=[oip_error_middleware])
    app.add_routes([web.get("/v2/relay", relay)])
    runner, url = await start_app(app, "127.0.0.1", 0, name="here", drain_s=0.1)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v2/relay") as answer:
        assert (answer.status, await answer.read()) == (502, b"<html>not ours</html>")
    await runner.cleanup()
