"""Bodies that lie on disk on their way: whole at whoever gets them, tried again, and no more memory than others."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest

from contracts import headers
from runtime.links.http import patience
from runtime.links.http.spool import SPOOLED_BYTES
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


INFER = "/v2/models/digits/infer"


async def infer(client: Client, *, chunked: bool = False) -> bytes:
    data = _one_chunk() if chunked else b"{}"
    async with client.session.post(client.url + INFER, data=data) as response:
        assert response.status == 200
        assert response.headers[headers.NODE] == "edge-fra"
        return await response.read()


async def _one_chunk() -> AsyncIterator[bytes]:
    yield b"{}"


@pytest.fixture
async def generous(edge: Server) -> Server:
    """A node with large answers."""
    edge.output = LARGE
    return edge


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_answers_come_whole(router: Route, generous: Server, *, chunked: bool) -> None:
    """However the request came: on the short way, and through aiohttp."""
    client = await router([static("edge-fra", generous.url)], [])
    for _ in range(3):
        assert digest(await infer(client, chunked=chunked)) == digest(LARGE)


async def test_a_caller_that_reads_slowly_keeps_no_node_waiting(router: Route, generous: Server) -> None:
    client = await router([static("edge-fra", generous.url)], [])
    await infer(client)
    slow = await RawCaller.connect(client.url, limit=1 << 12)
    await slow.send(post(INFER, b"{}") * 3)
    assert (await slow.head()).status == 200
    for _ in range(3):
        assert digest(await infer(client)) == digest(LARGE)
    assert len(generous.seen) == 5  # what is pipelined behind an answer waits until that was taken
    assert digest(await slow.exactly(len(LARGE))) == digest(LARGE)
    for _ in range(2):
        told = await slow.answer()
        assert digest(told.body) == digest(LARGE)
    await slow.close()


async def test_a_caller_that_reads_nothing_is_left(
    router: Route, generous: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STALLED_S", 0.2)
    client = await router([static("edge-fra", generous.url)], [])
    dead = await RawCaller.connect(client.url, limit=1 << 12)
    await dead.send(post(INFER, b"{}"))
    assert (await dead.head()).status == 200
    await asyncio.sleep(0.5)
    assert len(await dead.rest()) < len(LARGE)
    await dead.close()
    in_flight = "foothill_in_flight"
    await until_async(client, lambda text: f'{in_flight}{{part="router"}} 0.0' in text)


async def test_a_head_that_comes_drop_by_drop_does_not_hold_a_connection(
    router: Route, edge: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    client = await router([static("edge-fra", edge.url)], [])
    silent, dripping, good = [await RawCaller.connect(client.url) for _ in range(3)]
    await good.send(post("/v1/predict/digits", b"x"))
    assert (await good.answer()).status == 200
    await good.send(post("/v1/predict/digits", b"x")[:20])

    async def drip() -> None:
        for byte in post("/v1/predict/digits", b"x"):
            await dripping.send(bytes([byte]))
            await asyncio.sleep(0.02)

    dropping = asyncio.create_task(drip())
    for caller in (silent, dripping, good):
        assert await caller.rest() == b""
    dropping.cancel()
    for caller in (silent, dripping, good):
        await caller.close()
    assert len(edge.seen) == 1


async def until_async(client: Client, true: Callable[[str], bool]) -> None:
    async def poll() -> None:
        while True:
            _, text = await client.ask("GET", "/metrics")
            if true(text.decode()):
                return
            await asyncio.sleep(0.02)

    await asyncio.wait_for(poll(), 20)
