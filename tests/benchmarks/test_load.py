"""The load counts successes only, and says so when there are others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from benchmarks.load import LoadError, drive, post
from runtime.links.http.serve import start_app


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        return web.Response(status=200 if body == b"good" else 503, body=b"x" * 100_000)

    app = web.Application()
    app.router.add_post("/", answer)
    runner, url = await start_app(app, "127.0.0.1", 0, name="test", drain_s=0.1)
    yield url
    await runner.cleanup()


async def test_it_asks_until_time_is_up_and_waits_for_the_last_answers(url: str) -> None:
    load = await drive(post(url, "/", {"A": "b"}, b"good"), concurrency=4, seconds=0.1)
    assert len(load.latencies_ms) >= 4
    assert load.wall_s >= 0.1
    assert (load.latencies_ms > 0).all()
    assert load.client_cpu_s > 0


async def test_a_failure_is_no_figure(url: str) -> None:
    with pytest.raises(LoadError, match="503"):
        await drive(post(url, "/", {}, b"bad"), concurrency=2, seconds=0.1)
