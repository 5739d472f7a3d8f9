"""Late answers at the router over real sockets: promised, asked for, waited for, given up, and whose they are."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from contracts import headers
from router import results, wiring
from runtime.links.escalation.holder import Certificates
from tests.router.rig import Server, Start, certificate, static
from tests.router.test_app import Client, Route, cloud, edge, refusal_of, router

__all__ = ["cloud", "edge", "router"]


@pytest.fixture
async def client(router: Route, edge: Server, cloud: Server, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A router whose node doubts everything, and whose cloud fails until it is told otherwise."""
    monkeypatch.setattr(wiring, "Certificates", lambda: Certificates([certificate()]))
    monkeypatch.setattr(results, "_FIRST_PAUSE_S", 0.05)
    edge.confidence, cloud.status = 0.3, 500
    return await router([static("edge-fra", edge.url)], [cloud.url])


async def promised(client: Client, request_id: str = "r-1") -> None:
    response, told = await client.predict({headers.REQUEST_ID: request_id, headers.DEADLINE_MS: "1000"})
    assert (response.status, json.loads(told)["label"]) == (200, "3")
    assert (response.headers[headers.DEGRADED], response.headers[headers.LATE]) == ("true", "spooled")


async def delivered(client: Client, request_id: str = "r-1") -> tuple[aiohttp.ClientResponse, bytes]:
    for _ in range(200):
        response, told = await client.ask("GET", f"/v1/results/{request_id}")
        if response.status != 202:
            return response, told
        await asyncio.sleep(0.02)
    raise AssertionError("it never came")


async def test_a_failed_escalation_is_answered_late(client: Client, cloud: Server) -> None:
    await promised(client)
    response, told = await client.ask("GET", "/v1/results/r-1")
    assert (response.status, json.loads(told)["state"], response.headers["Retry-After"]) == (202, "spooled", "5")
    cloud.status = 200
    response, told = await delivered(client)
    assert (response.status, json.loads(told)["label"], json.loads(told)["reason"]) == (200, "7", "late")
    assert response.headers[headers.LATE] == "delivered"
    assert (response.headers[headers.TIER], response.headers[headers.REASON]) == ("cloud", "late")
    assert headers.ANSWER not in response.headers


async def test_a_late_cloud_is_answered_late(client: Client, cloud: Server) -> None:
    cloud.status, cloud.hold = 200, asyncio.Event()
    await promised(client)
    cloud.hold.set()
    response, told = await delivered(client)
    assert (response.status, json.loads(told)["label"]) == (200, "7")


async def test_the_short_way_promises_too(client: Client, cloud: Server) -> None:
    for number in range(3):
        await promised(client, f"short-{number}")
    cloud.status = 200
    for number in range(3):
        assert (await delivered(client, f"short-{number}"))[0].status == 200


async def test_it_is_an_event_when_it_comes(client: Client, cloud: Server) -> None:
    await promised(client)
    async with client.session.get(f"{client.url}/v1/results/r-1", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.content_type == "text/event-stream"
        assert await stream.content.readline() == b": waiting\n"
        cloud.status = 200
        told = (await asyncio.wait_for(stream.content.read(), 5.0)).decode()
    kind, data = told.strip().split("\n")[-2:]
    assert kind == "event: result"
    event = json.loads(data.removeprefix("data: "))
    assert (event["status"], event["body"]["label"], event["headers"][headers.LATE]) == (200, "7", "delivered")


async def test_one_that_is_refused_is_gone(client: Client, cloud: Server) -> None:
    await promised(client)
    async with client.session.get(f"{client.url}/v1/results/r-1", headers={"Accept": "text/event-stream"}) as stream:
        await stream.content.readline()
        cloud.status = 400
        assert b"event: gone" in await asyncio.wait_for(stream.content.read(), 5.0)
    response, told = await client.ask("GET", "/v1/results/r-1")
    assert refusal_of(response, told).code == "not_found"


@pytest.mark.parametrize("name", ["nobody", "%00", "a%2Fb", "%ff%fe"])
async def test_what_nobody_promised_is_not_found(client: Client, name: str) -> None:
    response, told = await client.ask("GET", f"/v1/results/{name}")
    assert refusal_of(response, told).code == "not_found"


async def test_a_caller_that_wants_no_escalation_is_promised_nothing(client: Client) -> None:
    response, _ = await client.predict({headers.ESCALATION: "never"})
    assert headers.LATE not in response.headers


async def test_where_there_is_no_cloud_nothing_is_promised(
    router: Route, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "Certificates", lambda: Certificates([certificate()]))
    edge = await start("edge-fra")
    edge.confidence = 0.3
    client = await router([static("edge-fra", edge.url)], [])
    response, _ = await client.predict()
    assert (response.headers[headers.DEGRADED], headers.LATE in response.headers) == ("true", False)


async def test_what_does_not_fit_is_not_promised(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST", 2)
    told = [(await client.predict({headers.REQUEST_ID: f"r-{number}"}))[0] for number in range(4)]
    assert [headers.LATE in one.headers for one in told] == [True, True, False, False]


async def test_one_id_is_promised_once(client: Client, cloud: Server) -> None:
    await promised(client)
    response, _ = await client.predict({headers.REQUEST_ID: "r-1"})
    assert headers.LATE not in response.headers
    cloud.status = 200
    assert (await delivered(client))[0].status == 200
