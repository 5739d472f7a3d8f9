"""The short way over real sockets: as many answers as requests, the same as the long way's, whatever nodes do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from contracts import headers
from contracts.timing import parse_server_timing
from router import nodes as nodes_module
from router import stories, wiring
from router.node import Node
from runtime.links.escalation.holder import Certificates
from runtime.links.http import hot_routes
from runtime.links.http.exchanges import Body, Known, Story
from runtime.links.http.hot_routes import Coming, GiveUp, Prepare, Shortcut, Turn
from tests.router.rig import TOKYO, Server, Start, certificate, static
from tests.router.test_app import Client, Route, cloud, edge, router
from tests.runtime.raw_caller import until

__all__ = ["cloud", "edge", "router"]

IMAGE = {"Content-Type": "image/png"}
OWN = {headers.REQUEST_ID.lower(), headers.SERVER_TIMING.lower(), headers.TRACEPARENT, "date"}


class Watched:
    """A short way whose requests, and what became of them, are known."""

    def __init__(self, way: Shortcut, taken: list[bool]) -> None:
        self._way = way
        self._taken = taken

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        sent = self._way.start(body, turn)
        self._taken.append(sent is not None)
        return sent

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        return self._way.expect(peek, body_bytes, turn)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each request whose head was known and whose body was there: whether a node was asked just so."""
    taken: list[bool] = []

    def watched(method: str, pattern: str, story: Story, prepare: Prepare, **more: Any) -> hot_routes.Route:
        def prepared(known: Known) -> Shortcut | None:
            way = prepare(known)
            return Watched(way, taken) if way is not None else None

        return hot_routes.Route(method, pattern, story, prepared, **more)

    monkeypatch.setattr(stories, "Route", watched)
    return taken


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The nodes of every router, in the order of their coming."""
    made: list[Node] = []

    def watched(*told: Any) -> Node:
        made.append(Node(*told))
        return made[-1]

    monkeypatch.setattr(nodes_module, "Node", watched)
    return made


@pytest.fixture(autouse=True)
def certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every router knows the live certificate, with a threshold of 0.8."""
    monkeypatch.setattr(wiring, "Certificates", lambda: Certificates([certificate()]))


async def warm(client: Client, times: int = 2) -> None:
    """Until the head is known and a connection to the node is open."""
    for _ in range(times):
        response, told = await client.predict()
        assert response.status == 200, told


async def test_it_answers_as_the_long_way_does(router: Route, edge: Server, cloud: Server, short: list[bool]) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    edge.confidence = 0.9
    (long, long_body), (again, again_body) = [await client.predict() for _ in range(2)]
    assert short == [False, True]
    assert {k: v for k, v in again.headers.items() if k.lower() not in OWN} == {
        k: v for k, v in long.headers.items() if k.lower() not in OWN
    }
    assert again_body == long_body
    assert json.loads(again_body)["reason"] == "confident"
    assert {"route", "network", "queue", "infer", "total"} <= parse_server_timing(again.headers["Server-Timing"]).keys()
    first, second = ({k.lower() for k in seen.headers} for seen in edge.seen)
    assert first == second
    assert edge.bodies == [b"png", b"png"]


async def test_a_doubtful_answer_is_escalated(router: Route, edge: Server, cloud: Server, short: list[bool]) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    await warm(client)
    edge.confidence = 0.3
    response, told = await client.predict()
    assert (response.headers[headers.TIER], response.headers[headers.REASON]) == ("cloud", "doubtful")
    assert json.loads(told)["label"] == "7"
    assert cloud.bodies == [b"png"]
    assert short == [False, True, True]
    assert "escalate" in parse_server_timing(response.headers["Server-Timing"])


async def test_a_doubtful_answer_stands_where_the_caller_wants_no_escalation(
    router: Route, edge: Server, cloud: Server, short: list[bool]
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    edge.confidence = 0.3
    for _ in range(2):
        response, _ = await client.predict({headers.ESCALATION: "never"})
        assert (response.status, response.headers[headers.TIER]) == (200, "edge")
    assert not cloud.seen
    assert short == [False, True]


async def test_where_the_cloud_fails_the_edge_answer_is_told_degraded(
    router: Route, edge: Server, cloud: Server, short: list[bool]
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    await warm(client)
    edge.confidence, cloud.status = 0.3, 503
    response, told = await client.predict()
    assert (response.status, response.headers[headers.DEGRADED], json.loads(told)["label"]) == (200, "true", "3")
    assert short == [False, True, True]


async def test_with_no_node_that_can_answer_the_cloud_does(
    router: Route, edge: Server, cloud: Server, short: list[bool]
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    await warm(client)
    edge.status = 503
    response, told = await client.predict()
    assert (response.status, response.headers[headers.TIER]) == (200, "cloud"), told
    assert short == [False, True, True]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_node_that_refuses_is_followed_by_another(
    router: Route, start: Start, edge: Server, short: list[bool], status: int
) -> None:
    other = await start("edge-tok")
    client = await router([static("edge-fra", edge.url), static("edge-tok", other.url, TOKYO)], [])
    await warm(client)
    edge.status = status
    for _ in range(3):
        response, told = await client.predict()
        assert (response.status, response.headers[headers.NODE]) == (200, "edge-tok"), told
    assert short == [False, True, True, True, True]


@pytest.mark.parametrize("status", [400, 413])
async def test_a_refusal_of_the_request_itself_is_relayed(
    router: Route, edge: Server, cloud: Server, short: list[bool], status: int
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    await warm(client)
    edge.status = status
    response, told = await client.predict()
    assert response.status == status
    assert json.loads(told)["message"] == "edge-fra says no"
    assert not cloud.seen
    assert short == [False, True, True]


async def test_a_node_that_stalls_leaves_time_for_another(
    router: Route, start: Start, edge: Server, short: list[bool], nodes: list[Node]
) -> None:
    other = await start("edge-tok")
    client = await router([static("edge-fra", edge.url), static("edge-tok", other.url, TOKYO)], [])
    await warm(client)
    edge.hold = asyncio.Event()
    for _ in range(4):
        response, told = await client.predict({headers.DEADLINE_MS: "1000"})
        assert (response.status, response.headers[headers.NODE]) == (200, "edge-tok"), told
    edge.hold.set()
    assert [node.in_flight for node in nodes] == [0] * len(nodes)


async def test_a_deadline_that_differs_is_this_requests_own(
    router: Route, edge: Server, short: list[bool], nodes: list[Node]
) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    for deadline in ("9000", "8000", "7000"):
        response, _ = await client.predict({headers.DEADLINE_MS: deadline})
        assert response.status == 200
    assert short == [False, True, True]
    told = [float(seen.headers[headers.DEADLINE_MS]) for seen in edge.seen]
    assert told[0] > told[1] > told[2]
    edge.hold = asyncio.Event()
    response, body = await client.predict({headers.DEADLINE_MS: "0300"})
    assert response.status == 504, body
    edge.hold.set()
    assert nodes[0].in_flight == 0


async def test_a_deadline_out_of_form_is_refused_behind_good_ones(router: Route, edge: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    statuses = [
        (await client.predict({headers.DEADLINE_MS: told}))[0].status for told in ("9000", "8000", "-100", "1e99")
    ]
    assert statuses == [200, 200, 400, 400]


async def test_a_caller_that_leaves_is_cancelled_at_the_node(
    router: Route, edge: Server, short: list[bool], nodes: list[Node]
) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    await warm(client)
    edge.hold = asyncio.Event()
    edge.arrived.clear()
    asking = asyncio.create_task(client.predict())
    await edge.arrived.wait()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(edge.cancelled.wait(), 2.0)
    await until(lambda: nodes[0].in_flight == 0)
    assert short[-1]


async def test_a_caller_that_leaves_while_another_node_is_asked_leaves_nothing_behind(
    router: Route, start: Start, edge: Server, nodes: list[Node]
) -> None:
    other = await start("edge-tok")
    client = await router([static("edge-fra", edge.url), static("edge-tok", other.url, TOKYO)], [])
    await warm(client)
    edge.status = other.status = 503
    edge.hold = other.hold = None
    holds = asyncio.Event()
    other.status, other.hold = 200, holds
    other.arrived.clear()
    asking = asyncio.create_task(client.predict())
    await other.arrived.wait()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await until(lambda: all(node.in_flight == 0 for node in nodes))
    holds.set()


async def test_an_answer_out_of_form_costs_nobody_an_answer(
    router: Route, edge: Server, cloud: Server, nodes: list[Node]
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    await warm(client)
    edge.confidence = float("nan")
    response, _ = await client.predict()
    assert response.status in (200, 502)
    assert nodes[0].in_flight == 0
    edge.confidence = 0.99
    assert (await client.predict())[0].status == 200


async def test_a_node_that_was_started_again_is_not_blamed_for_its_old_connections(
    router: Route, edge: Server, short: list[bool], nodes: list[Node]
) -> None:
    """A server that closes what is idle: the connection looked open until the request was on its way."""
    client = await router([static("edge-fra", edge.url)], [])
    await warm(client)
    for _ in range(3):
        edge.hang_up()
        response, told = await client.predict()
        assert response.status == 200, told
    assert nodes[0].circuit.state == "closed"
    assert nodes[0].in_flight == 0


class Rude:
    """A server of bytes: reads requests, and does one of several things that no server should."""

    def __init__(self) -> None:
        self.does = "answer"
        self.served = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.served += 1
                if not self._act(writer):
                    break
        writer.close()

    def _act(self, writer: asyncio.StreamWriter) -> bool:
        does = random.choice([*RUDENESS, *["answer"] * 20]) if self.does == "any" else self.does
        good = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nFoothill-Load: in_flight=1\r\n\r\nok"
        )
        told = {
            "answer": good,
            "half": good[:-1],
            "nothing": b"",
            "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
            "twice": good + good,
            "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
            "load": good.replace(b"in_flight=1", b"in_flight=\xff;;=nan"),
            "confidence": good.replace(b"Foothill-Load", b"Foothill-Confidence: sure\r\nFoothill-Load"),
        }[does]
        writer.write(told)
        return does in ("answer", "twice", "load", "confidence")


RUDENESS = ("answer", "half", "nothing", "garbage", "twice", "chunks", "load", "confidence")


@pytest.fixture
async def rude() -> AsyncIterator[tuple[Rude, str]]:
    made = Rude()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in made.writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("does", RUDENESS)
async def test_a_rude_node_gets_no_caller_hung(
    router: Route, cloud: Server, rude: tuple[Rude, str], nodes: list[Node], does: str
) -> None:
    server, url = rude
    client = await router([static("edge-rude", url)], [cloud.url])
    await warm(client, 3)
    server.does = does
    for _ in range(3):
        response, told = await asyncio.wait_for(client.predict({headers.DEADLINE_MS: "2000"}), 5.0)
        assert response.status in (200, 502), told
    assert all(node.in_flight == 0 for node in nodes)


async def test_under_anything_at_all_each_request_gets_one_answer_and_nothing_stays_in_flight(
    router: Route, cloud: Server, edge: Server, rude: tuple[Rude, str], nodes: list[Node]
) -> None:
    server, url = rude
    client = await router([static("edge-rude", url), static("edge-fra", edge.url, TOKYO)], [cloud.url])
    await warm(client, 4)
    server.does = "any"
    rng = random.Random(7)

    async def ask(number: int) -> None:
        await asyncio.sleep(rng.random())
        asking = asyncio.create_task(client.predict({headers.DEADLINE_MS: "2000"}, b"x" * rng.choice((3, 100_000))))
        if number % 5 == 0:
            await asyncio.sleep(rng.random() / 50)
            asking.cancel()
        try:
            response, told = await asyncio.wait_for(asking, 5.0)
        except asyncio.CancelledError:
            return
        assert response.status in (200, 502, 503), told

    await asyncio.gather(*(ask(number) for number in range(300)))
    await until(lambda: all(node.in_flight == 0 for node in nodes))
    assert server.served >= 5
