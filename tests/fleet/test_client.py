"""The operator's client meeting something else than this version's fleet manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from contracts.errors import FoothillError
from fleet.client import FleetClient
from runtime.links.http.serve import start_app

Stranger = Callable[[web.Response], Awaitable[FleetClient]]
NO_TEXT = b'{"code":"\xff","id":"\xff"}'


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    """A client of a server that gives everybody one answer."""
    runners: list[web.AppRunner] = []

    async def start(answer: web.Response) -> FleetClient:
        async def give(_: web.Request) -> web.Response:
            return web.Response(status=answer.status, body=answer.body)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", give)
        runner, url = await start_app(app, "127.0.0.1", 0, name="stranger", drain_s=0.1)
        runners.append(runner)
        return FleetClient(url, "token")

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize("body", [b"<html>", NO_TEXT, b"[" * 100_000])
async def test_whatever_a_stranger_answers_is_one_error(stranger: Stranger, body: bytes) -> None:
    client = await stranger(web.Response(body=body))
    with pytest.raises(FoothillError, match="does not answer like this version's fleet manager"):
        await asyncio.to_thread(client.rollout, "r1")
    client = await stranger(web.Response(body=body, status=500))
    with pytest.raises(FoothillError, match="HTTP 500, and not from a Foothill fleet manager"):
        await asyncio.to_thread(client.rollout, "r1")


async def test_events_of_a_stranger_are_the_same_error(stranger: Stranger) -> None:
    client = await stranger(web.Response(body=b'data: {"id":"\xff"}\n\n'))
    with pytest.raises(FoothillError, match="does not answer like this version's fleet manager"):
        await asyncio.to_thread(lambda: list(client.watch("r1", sleep=lambda _: None)))
