"""Upstreams and proxies for the tests of the router; every proxy must end with nothing in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from router.config import StaticNode
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Upstreams
from tests.router.rig import BuildRig, Rig, Server, Start


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts an upstream: `await start("edge-fra")` or `await start("cloud", tier="cloud", answer="7")`."""
    runners: list[web.AppRunner] = []

    async def started(name: str, *, tier: str = "edge", answer: str = "3") -> Server:
        server = Server(name, tier, answer)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner, server.url = await start_app(app, "127.0.0.1", 0, name=name, drain_s=0.1)
        runners.append(runner)
        return server

    yield started
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def rig() -> AsyncIterator[BuildRig]:
    upstreams = Upstreams(connect_timeout_s=0.5)
    made: list[Rig] = []

    def build(
        nodes: list[StaticNode],
        cloud_urls: list[str],
        *,
        cloud_region: str = "",
        audit_rate: float = 0.0,
        floor_per_s: float = 10.0,
    ) -> Rig:
        made.append(
            Rig(
                upstreams,
                nodes,
                cloud_urls,
                cloud_region=cloud_region,
                audit_rate=audit_rate,
                floor_per_s=floor_per_s,
            )
        )
        return made[-1]

    yield build
    for each in made:
        await each.results.close()
        await each.holder.close()
    await upstreams.close()
    assert [each.in_flight() for each in made] == [0] * len(made)
