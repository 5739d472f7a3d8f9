"""Bodies that lie on disk on their way: whole at whoever gets them, tried again, and no more memory than others."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from contracts import headers
from router.calls import SPOOLED_BYTES
from tests.router.rig import Server, Start, static
from tests.router.test_app import Client, Route, cloud, edge, refusal_of, router
from tests.runtime.raw_caller import RawCaller, post, until

__all__ = ["cloud", "edge", "router"]

LARGE = os.urandom(5 * SPOOLED_BYTES + 12_345)
IMAGE = {"Content-Type": "image/png"}


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def full_disk(**_: Any) -> Any:
    """The device on which no byte has room."""
    return open("/dev/full", "r+b", buffering=0)


async def chunks() -> AsyncIterator[bytes]:
    for at in range(0, len(LARGE), 100_000):
        yield LARGE[at : at + 100_000]


async def large(
    client: Client, body: bytes = LARGE, sent: Mapping[str, str] = {}
) -> tuple[aiohttp.ClientResponse, bytes]:
    """Its caller reads it as from a file."""
    url, given = f"{client.url}/v1/predict/digits", {**IMAGE, **sent}
    async with client.session.post(url, data=io.BytesIO(body), headers=given) as response:
        return response, await response.read()


@pytest.mark.parametrize("chunked", [False, True])
async def test_they_come_whole(router: Route, edge: Server, *, chunked: bool) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    for _ in range(2):
        async with client.session.post(
            f"{client.url}/v1/predict/digits", data=chunks() if chunked else io.BytesIO(LARGE), headers=IMAGE
        ) as response:
            assert response.status == 200, await response.text()
    assert [digest(body) for body in edge.bodies] == [digest(LARGE)] * 2
    assert edge.seen[0].headers["Content-Length"] == str(len(LARGE))


async def test_one_is_tried_again_at_another_node(router: Route, edge: Server, start: Start) -> None:
    other = await start("edge-two")
    other.status = edge.status = 503
    client = await router([static("edge-fra", edge.url), static("edge-two", other.url)], [])
    asking = asyncio.create_task(large(client))
    await until(lambda: bool(edge.bodies or other.bodies))
    edge.status = other.status = 200
    response, _ = await asking
    assert response.status == 200
    assert {digest(body) for body in edge.bodies + other.bodies} == {digest(LARGE)}


async def test_one_is_escalated(router: Route, edge: Server, cloud: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    response, _ = await large(client, sent={headers.ESCALATION: "always"})
    assert (response.status, response.headers[headers.TIER]) == (200, "cloud")
    assert [digest(body) for body in cloud.bodies] == [digest(LARGE)]


async def test_a_caller_that_breaks_off_costs_no_node_anything(router: Route, edge: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    caller = await RawCaller.connect(client.url)
    head = post("/v1/predict/digits", LARGE)[: -len(LARGE)]
    await caller.send(head + LARGE[: 2 * SPOOLED_BYTES])
    caller.vanish()
    response, _ = await client.ask("POST", "/v1/predict/digits", body=b"x", sent=IMAGE)
    assert response.status == 200
    assert edge.bodies == [b"x"]


async def test_one_that_is_too_large_is_refused_at_its_head(router: Route, edge: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [], max_body_bytes=2 * SPOOLED_BYTES)
    response, body = await large(client)
    assert refusal_of(response, body).code == "body_too_large"
    async with client.session.post(f"{client.url}/v1/predict/digits", data=chunks(), headers=IMAGE) as late:
        assert late.status == 413
    assert edge.bodies == []


async def test_one_that_does_not_come_in_time_is_told_so(router: Route, edge: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    caller = await RawCaller.connect(client.url)
    head = post("/v1/predict/digits", LARGE, Foothill_Deadline_Ms="300")[: -len(LARGE)]
    await caller.send(head + LARGE[: 2 * SPOOLED_BYTES])
    told = await caller.answer()
    assert told.status == 504
    await caller.close()
    assert edge.bodies == []


async def test_many_slow_ones_take_little_memory(router: Route, edge: Server) -> None:
    """Sixty bodies under way: more than three hundred megabytes."""
    client = await router([static("edge-fra", edge.url)], [])
    before = _resident_bytes()
    callers = [await RawCaller.connect(client.url) for _ in range(60)]
    head = post("/v1/predict/digits", LARGE)[: -len(LARGE)]
    for caller in callers:
        await caller.send(head + LARGE[:-1])
    grown = _resident_bytes() - before
    assert grown < 60 * len(LARGE) / 3
    for caller in callers:
        await caller.send(LARGE[-1:])
    for caller in callers:
        assert (await caller.answer()).status == 200
        await caller.close()


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_what_is_just_small_enough_stays_in_memory(router: Route, edge: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    for size in (SPOOLED_BYTES, SPOOLED_BYTES + 1):
        response, _ = await large(client, LARGE[:size])
        assert response.status == 200
    assert [len(body) for body in edge.bodies] == [SPOOLED_BYTES, SPOOLED_BYTES + 1]


async def test_a_full_disk_refuses_the_large_ones_alone(
    router: Route, edge: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full_disk)
        caller = await RawCaller.connect(client.url)
        for _ in range(2):
            await caller.send(post("/v1/predict/digits", LARGE))
            told = await caller.answer()
            assert (told.status, b"No space left on device" in told.body) == (503, True)
        await caller.send(post("/v1/predict/digits", b"x"))
        assert (await caller.answer()).status == 200
        await caller.close()
    assert (await large(client))[0].status == 200
