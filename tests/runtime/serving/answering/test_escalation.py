"""A node holds its direct callers' requests, and its cloud does its worst: over real sockets, with a real model.

Whatever happens on the uplink, every caller gets the edge's answer in time, marked degraded.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from contracts.messages import Certificate
from runtime.links.access.hop import sign_hop
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from tests.runtime.serving.conftest import HOP_KEY, Load, Serve
from tests.runtime.serving.test_app import picture

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PAGE = b"<html>Welcome to the hotel. Room number?</html>"


class Uplink:
    """A cloud of raw bytes: `script` plays each connection, `asked` counts them."""

    def __init__(self) -> None:
        self.script: Script = silent
        self.asked = 0
        self.open: set[asyncio.Task[None]] = set()
        self.url = ""
        self.news = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        self.asked += 1
        self.news.set()
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                await self.script(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.open.discard(task)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As behind a NAT that has forgotten the connection."""
    await asyncio.sleep(60)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    await writer.drain()


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


def says(head: str, body: bytes = PAGE) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return script


def bytes_only(data: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


HOSTILE: dict[str, Script] = {
    "silent": silent,
    "reset": reset,
    "drips": drips,
    "breaks off": breaks_off,
    "endless head": endless_head,
    "no HTTP": bytes_only(b"\x16\x03\x01\x00\xff" * 100),
    "nothing": bytes_only(b""),
    "a portal's page": says("200 OK\r\nContent-Type: text/html"),
    "a portal's empty page": says("200 OK", b""),
    "204": says("204 No Content", b""),
    "redirect": says("302 Found\r\nLocation: http://127.0.0.1:1/login", b""),
    "another request's answer": says("200 OK\r\nFoothill-Request-Id: other\r\nFoothill-Tier: cloud", b"{}"),
    "proxy wants a login": says("407 Proxy Authentication Required"),
    "400": says("400 Bad Request"),
    "403": says("403 Forbidden"),
    "500": says("500 Internal Server Error"),
    "502": says("502 Bad Gateway"),
    "503": says("503 Service Unavailable\r\nRetry-After: 100000"),
    "599": says("599 Whatever"),
}


@pytest.fixture
async def uplink() -> AsyncIterator[Uplink]:
    made = Uplink()
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    for task in list(made.open):
        task.cancel()
    await asyncio.gather(*made.open, return_exceptions=True)


class Node:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def ask(self, *, within_ms: float = 2000.0, body: bytes | None = None, **sent: str) -> dict[str, Any]:
        """The answer's headers, lower-case and without the prefix, with its status, label, and the ms it took."""
        given = {f"Foothill-{name.replace('_', '-')}": value for name, value in sent.items()}
        given |= {"Content-Type": "image/png", "Foothill-Deadline-Ms": f"{within_ms}"}
        started_s = time.monotonic()
        async with self._session.post(
            f"{self.url}/v1/predict/digits", data=picture() if body is None else body, headers=given
        ) as answer:
            told = await answer.json()
            names = {name.lower().removeprefix("foothill-"): value for name, value in answer.headers.items()}
            took_ms = (time.monotonic() - started_s) * 1000.0
            return names | {"status": answer.status, "label": told.get("label"), "took_ms": took_ms}


Build = Callable[..., Awaitable[Node]]


@pytest.fixture
async def node(host: ModelHost, load: Load, serve: Serve, uplink: Uplink) -> AsyncIterator[Build]:
    upstreams, holders = Upstreams(), []
    session = aiohttp.ClientSession()

    async def build(**options: Any) -> Node:
        loaded = load()
        await host.activate("digits", loaded)
        doubts_all = Certificate(loaded.stratum, "digits", 2.0, 0.1, 0.1, 1, "live", 1, 0.0)
        holder = Holder(
            node="fra-1",
            cloud_urls=[uplink.url],
            upstreams=upstreams,
            certificates=Certificates([doubts_all]),
            hop_key=HOP_KEY,
            hop_name="node",
            publish_audit=lambda audit: None,
            telemetry=Telemetry(),
            rng=random.Random(0),
            audit_rate=0.0,
            **options,
        )
        holders.append(holder)
        settings = ServingSettings(node="fra-1", tier="edge", hop_key=HOP_KEY, region="eu")
        return Node(await serve(app=create_app(host, settings, holder=holder, telemetry=Telemetry())), session)

    yield build
    await session.close()
    for holder in holders:
        await holder.close()
    await upstreams.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_whatever_the_uplink_does_the_edges_answer_comes_in_time(node: Build, uplink: Uplink, name: str) -> None:
    uplink.script = HOSTILE[name]
    asked = await node()
    answer = await asked.ask(within_ms=700)
    assert (answer["status"], answer["tier"], answer["degraded"], answer["certified"]) == (200, "edge", "true", "false")
    assert answer["reason"] == "cloud-failed"
    assert answer["label"] is not None
    assert uplink.asked >= 1
    assert "hop" not in answer
    assert "load" not in answer


@pytest.mark.parametrize("name", ["reset", "a portal's page", "redirect", "500"])
async def test_an_uplink_that_keeps_failing_is_left_alone(node: Build, uplink: Uplink, name: str) -> None:
    uplink.script = HOSTILE[name]
    asked = await node()
    reasons = [(await asked.ask())["reason"] for _ in range(8)]
    assert reasons == ["cloud-failed"] * 5 + ["no-cloud"] * 3


async def test_a_cloud_that_refuses_an_input_is_none_that_fails(node: Build, uplink: Uplink) -> None:
    uplink.script = HOSTILE["400"]
    asked = await node()
    assert [(await asked.ask())["reason"] for _ in range(8)] == ["cloud-failed"] * 8


async def test_a_stalled_uplink_holds_a_bounded_number_of_requests(node: Build, uplink: Uplink) -> None:
    asked = await node(max_escalations_in_flight=3)
    answers = await asyncio.gather(*(asked.ask(within_ms=1500) for _ in range(20)))
    assert {answer["status"] for answer in answers} == {200}
    assert {answer["degraded"] for answer in answers} == {"true"}
    assert uplink.asked == 3
    reasons = [answer["reason"] for answer in answers]
    assert (reasons.count("cloud-failed"), reasons.count("no-cloud")) == (3, 17)


async def test_a_caller_that_hangs_up_takes_its_escalation_with_it(node: Build, uplink: Uplink) -> None:
    asked = await node(max_escalations_in_flight=1)
    leaving = asyncio.create_task(asked.ask(within_ms=60_000))
    await asyncio.wait_for(uplink.news.wait(), 20)
    assert (await asked.ask())["reason"] == "no-cloud"
    leaving.cancel()
    uplink.script = reset
    reasons = [(await asked.ask())["reason"] for _ in range(100)]
    assert "cloud-failed" in reasons


async def test_who_comes_from_a_hop_is_never_escalated_here(node: Build, uplink: Uplink) -> None:
    asked = await node()
    for hop in ("router", "node"):
        mark = sign_hop(HOP_KEY, hop, "r-1", time.time())
        answer = await asked.ask(Hop=mark, Request_Id="r-1", Escalation="always")
        assert (answer["status"], answer["reason"]) == (200, "unsettled")
        assert "load" in answer
    assert uplink.asked == 0


async def test_a_mark_is_not_proof_of_the_body_but_of_the_sender_for_a_minute(node: Build, uplink: Uplink) -> None:
    """Whoever reads the wire between two hops can send another body under a mark: TLS is what keeps him out.

    He gains an answer that nobody escalates, and that only for the request id he saw.
    """
    asked = await node()
    mark = sign_hop(HOP_KEY, "router", "r-1", time.time())
    assert (await asked.ask(Hop=mark, Request_Id="r-1", body=picture(14)))["reason"] == "unsettled"
    assert not uplink.asked
    uplink.script = reset
    assert (await asked.ask(Hop=mark, Request_Id="r-2"))["reason"] == "cloud-failed"
    forged = mark[:-1] + ("0" if mark[-1] != "0" else "1")
    answer = await asked.ask(Hop=forged, Request_Id="r-1", Load="in_flight=0", Answer="7")
    assert answer["reason"] == "cloud-failed"
    assert "load" not in answer
    assert "answer" not in answer


async def test_a_claim_that_shuts_the_cloud_out_is_kept_whatever_else_is_asked(node: Build, uplink: Uplink) -> None:
    for region in ("", "us"):
        asked = await node(cloud_region=region)
        for escalation in ("auto", "always"):
            answer = await asked.ask(Residency="eu", Escalation=escalation)
            assert (answer["status"], answer["reason"], answer["degraded"]) == (200, "no-cloud", "true")
    assert uplink.asked == 0
