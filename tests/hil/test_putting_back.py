"""Putting a node back where its fleet manager is away, or does not answer, or is interrupted."""

from __future__ import annotations

import asyncio

from aiohttp import web

from contracts.acceptance import BundleSeen, Check
from hil.bench import Bench
from hil.boards import Board, Limits
from hil.fleet import FleetNode, FleetPort
from hil.node import NodeUnderTest
from hil.plan import Plan
from hil.restoring import put_back
from hil.suite import Taken, accept
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Upstreams
from tests.fleet.scripted import FINGERPRINT

AWAY = "http://127.0.0.1:9"


def changed(fleet_url: str, upstreams: Upstreams) -> Bench:
    """A bench whose node was found serving digits-edge@2, and has been changed since."""
    board = Board(node="board-1", limits=Limits(update_s=0.2))
    fleet = FleetPort(fleet_url, upstreams, token="token")
    bench = Bench(NodeUnderTest(AWAY, upstreams), fleet, board, Plan(), upstreams, lambda line: None)
    bench.found = FleetNode("board-1", AWAY, "cpu-x86", "online", {"digits": "sha256:a"}, {}, FINGERPRINT)
    bench.bundles.append(BundleSeen("digits", "digits-edge@2", "sha256:a", "cpu.onnx", "CPUExecutionProvider"))
    return bench


async def test_without_a_fleet_manager_it_says_what_to_type_later() -> None:
    upstreams = Upstreams()
    try:
        (check,) = await put_back(changed(AWAY, upstreams))
    finally:
        await upstreams.close()
    assert (check.name, check.outcome) == ("restored", "failed")
    assert "the fleet manager does not answer, the node is left as it is" in check.detail
    assert "`foothill fleet rollout start digits-edge@2 --nodes board-1 --gate health`" in check.detail


async def test_an_interrupt_while_it_puts_back_ends_it_and_the_report_says_so() -> None:
    asked = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", never)
    runner, url = await start_app(app, "127.0.0.1", 0, name="fleet", drain_s=0.1)
    upstreams = Upstreams()
    told: list[Check] = []
    try:
        bench = changed(url, upstreams)
        running = asyncio.create_task(accept(bench, Taken("board-1", "0.1", 0.0), told.append))
        await asked.wait()
        running.cancel()
        report = await running
    finally:
        await upstreams.close()
        await runner.cleanup()
    assert report.interrupted
    assert told[-1] == report.checks[-1]
    assert (told[-1].name, told[-1].outcome) == ("restored", "failed")
    assert "interrupted while the node was put back" in told[-1].detail


async def test_a_node_that_nothing_was_done_to_is_as_it_was() -> None:
    upstreams = Upstreams()
    try:
        bench = changed(AWAY, upstreams)
        bench.found = None
        (check,) = await put_back(bench)
    finally:
        await upstreams.close()
    assert (check.outcome, check.detail) == ("passed", "nothing was changed")
