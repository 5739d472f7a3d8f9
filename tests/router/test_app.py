"""The router's routes over real sockets: what goes in, what comes out, and what never crosses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from contracts import headers
from contracts.errors import KINDS, ErrorBody
from contracts.leases import Lease
from contracts.oip import IndexEntry
from contracts.timing import parse_server_timing
from router.config import Config, StaticNode
from router.facts import united
from router.wiring import wired
from runtime.links.http.serve import start_app
from tests.router.places import databases
from tests.router.rig import DUBLIN, HOP_KEY, TOKYO, Server, Start, static

Sent = Mapping[str, str]


class Client:
    """Asks one router, as a caller from outside would."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def ask(
        self, method: str, path: str, *, body: bytes | None = None, sent: Sent | None = None
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        async with self.session.request(
            method, self.url + path, data=body, headers=sent, allow_redirects=False
        ) as response:
            return response, await response.read()

    async def predict(self, sent: Sent | None = None, body: bytes = b"png") -> tuple[aiohttp.ClientResponse, bytes]:
        return await self.ask(
            "POST", "/v1/predict/digits", body=body, sent={"Content-Type": "image/png", **(sent or {})}
        )

    async def json(self, method: str, path: str, *, body: bytes | None = None, sent: Sent | None = None) -> Any:
        response, told = await self.ask(method, path, body=body, sent=sent)
        assert response.status == 200, told
        return json.loads(told)


Route = Callable[..., Awaitable[Client]]


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Route]:
    """Starts a router: `await router(nodes, cloud_urls, key=value…)`."""
    key = tmp_path / "hop.key"
    key.write_text(HOP_KEY.hex())
    async with AsyncExitStack() as closing:

        async def started(nodes: list[StaticNode], cloud_urls: list[str], **changed: Any) -> Client:
            config = Config(
                broker_url="",
                nodes=tuple(nodes),
                cloud_urls=tuple(cloud_urls),
                hop_key_file=str(key),
                place=DUBLIN,
                **changed,
            )
            app = await closing.enter_async_context(wired(config, rng=random.Random(1)))
            runner, url = await start_app(app, "127.0.0.1", 0, name="router", drain_s=0.1)
            closing.push_async_callback(runner.cleanup)
            return Client(url, await closing.enter_async_context(aiohttp.ClientSession()))

        yield started


@pytest.fixture
async def edge(start: Start) -> Server:
    made = await start("edge-fra")
    made.confidence = None
    return made


@pytest.fixture
async def cloud(start: Start) -> Server:
    return await start("cloud", tier="cloud", answer="7")


@pytest.fixture
async def client(router: Route, edge: Server, cloud: Server) -> Client:
    return await router([static("edge-fra", edge.url)], [cloud.url])


def refusal_of(response: aiohttp.ClientResponse, body: bytes) -> ErrorBody:
    error = msgspec.json.decode(body, type=ErrorBody)
    assert "total" in parse_server_timing(response.headers[headers.SERVER_TIMING])
    assert KINDS[error.code].status == response.status
    assert response.headers[headers.REQUEST_ID] == error.request_id
    return error


async def test_an_answer_tells_where_why_how_long_and_how_sure(client: Client) -> None:
    response, body = await client.predict({headers.REQUEST_ID: "mine-1"})
    assert response.status == 200
    told = response.headers
    assert (told[headers.TIER], told[headers.NODE], told[headers.REASON]) == ("edge", "edge-fra", "no-confidence")
    assert (told[headers.REQUEST_ID], told[headers.MODEL]) == ("mine-1", "digits-edge@1")
    assert (told[headers.CERTIFIED], told[headers.DEGRADED]) == ("false", "false")
    phases = parse_server_timing(told[headers.SERVER_TIMING])
    assert list(phases) == ["route", "queue", "infer", "network", "total"]
    assert sum(phases.values()) - phases["total"] <= phases["total"] + 1
    assert json.loads(body)["reason"] == "no-confidence"


async def test_what_is_between_hops_is_not_believed_from_outside_nor_shown(client: Client, edge: Server) -> None:
    lies = {
        headers.HOP: "router;1;" + "0" * 64,
        headers.LOAD: "in_flight=0",
        headers.ANSWER: "9",
        headers.TIER: "cloud",
        headers.CONFIDENCE: "1.0",
        headers.CERTIFIED: "true",
        "Cookie": "secret",
        "Authorization": "Bearer secret",
        "X-Forwarded-For": "6.6.6.6",
        "Connection": "keep-alive, Foothill-Residency",
        "traceparent": "00-abc-def-01",
    }
    response, _ = await client.predict(lies)
    assert response.status == 200
    (seen,) = edge.seen
    assert seen.headers[headers.HOP] != lies[headers.HOP]
    assert seen.headers["traceparent"] == "00-abc-def-01"
    for name in (headers.LOAD, headers.ANSWER, headers.TIER, headers.CONFIDENCE, headers.CERTIFIED):
        assert name not in seen.headers
    for name in ("Cookie", "Authorization", "X-Forwarded-For"):
        assert name not in seen.headers
    assert not {name.lower() for name in response.headers} & headers.HOP_ONLY


async def test_every_one_of_several_residency_claims_counts_and_is_relayed(
    router: Route, edge: Server, cloud: Server
) -> None:
    client = await router([static("edge-fra", edge.url)], [cloud.url])
    for claims, status in ((("eu-central, us-east", "eu-central"), 200), (("eu-central, us-east", "us-east"), 403)):
        told = CIMultiDict([("Content-Type", "image/png"), *((headers.RESIDENCY, claim) for claim in claims)])
        response, _ = await client.ask("POST", "/v1/predict/digits", body=b"png", sent=told)
        assert response.status == status
    assert [seen.headers.getall(headers.RESIDENCY) for seen in edge.seen] == [["eu-central"]]
    assert cloud.seen == []


async def test_the_body_and_its_framing_pass_unchanged(client: Client, edge: Server) -> None:
    body = bytes(range(256)) * 300
    sent = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "17"}
    response, _ = await client.ask("POST", "/v2/models/digits/versions/1/infer?a=%20b", body=body, sent=sent)
    assert response.status == 200
    assert edge.bodies == [body]
    assert edge.seen[0].raw_path == "/v2/models/digits/versions/1/infer?a=%20b"
    assert edge.seen[0].headers["Inference-Header-Content-Length"] == "17"
    assert edge.seen[0].headers["Content-Type"] == "application/octet-stream"


async def test_two_lengths_or_a_length_and_chunks_are_no_request(client: Client, edge: Server) -> None:
    """What two parsers could read differently must not reach a node at all."""
    host, port = client.url.removeprefix("http://").split(":")
    smuggled = [
        b"Content-Length: 3\r\nContent-Length: 30\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: +3\r\n",
    ]
    for framing in smuggled:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/predict/digits HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\nabcGET /x HTTP/1.1\r\n\r\n")
        status_line = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert status_line.split()[1] == b"400", framing
    assert edge.seen == []


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({headers.DEADLINE_MS: "soon"}, headers.DEADLINE_MS),
        ({headers.DEADLINE_MS: "-1"}, headers.DEADLINE_MS),
        ({headers.ESCALATION: "maybe"}, headers.ESCALATION),
        ({headers.RESIDENCY: "EU!"}, headers.RESIDENCY),
        ({headers.REQUEST_ID: "a b"}, headers.REQUEST_ID),
    ],
)
async def test_terms_out_of_form_are_refused(client: Client, edge: Server, sent: Sent, told: str) -> None:
    response, body = await client.predict(sent)
    error = refusal_of(response, body)
    assert (error.code, error.source) == ("bad_header", "router")
    assert told in error.message
    assert edge.seen == []


async def test_an_upstreams_refusal_keeps_its_words_under_this_requests_id(client: Client, edge: Server) -> None:
    edge.status = 400
    response, body = await client.predict({headers.REQUEST_ID: "mine-2"})
    error = refusal_of(response, body)
    assert (error.code, error.source, error.request_id) == ("bad_image", "edge-fra", "mine-2")
    response, body = await client.ask("POST", "/v2/models/digits/infer", body=b"{}")
    assert json.loads(body)["error"] == "edge-fra says no"


async def test_a_busy_house_says_when_to_come_back(client: Client, edge: Server, cloud: Server) -> None:
    edge.status = cloud.status = 503
    response, body = await client.predict()
    assert refusal_of(response, body).retryable
    assert response.headers["Retry-After"] == "7"


async def test_a_body_over_the_limit_is_refused(router: Route, edge: Server) -> None:
    client = await router([static("edge-fra", edge.url)], [], max_body_bytes=1000)
    response, body = await client.predict(body=b"x" * 1001)
    assert refusal_of(response, body).code == "body_too_large"
    assert edge.seen == []


async def test_a_deadline_that_passes_is_a_504(client: Client, edge: Server, cloud: Server) -> None:
    edge.hold = cloud.hold = asyncio.Event()
    response, body = await client.predict({headers.DEADLINE_MS: "100"})
    assert refusal_of(response, body).code == "deadline_exceeded"


async def test_a_client_that_leaves_cancels_its_upstream(client: Client, edge: Server) -> None:
    edge.hold = asyncio.Event()
    asking = asyncio.create_task(client.predict())
    await asyncio.wait_for(edge.arrived.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(edge.cancelled.wait(), 5)


async def test_a_lease_ranks_for_the_place_in_the_body(router: Route, edge: Server) -> None:
    nodes = [static("edge-fra", edge.url), static("edge-nrt", "http://nrt:1", TOKYO, region="ap-northeast")]
    client = await router(nodes, ["http://cloud:1"], lease_ttl_s=12.0)
    asked = b'{"model": "digits", "place": {"lat": 34.7, "lon": 135.5}, "candidates": 1}'
    response, body = await client.ask("POST", "/v1/route", body=asked)
    assert list(parse_server_timing(response.headers[headers.SERVER_TIMING])) == ["total"]
    lease = msgspec.json.decode(body, type=Lease)
    assert [node.url for node in lease.nodes] == ["http://nrt:1"]
    assert (lease.cloud, lease.ttl_s) == ("http://cloud:1", 12.0)
    _, body = await client.ask("POST", "/v1/route", body=asked, sent={headers.RESIDENCY: "eu-central"})
    narrowed = msgspec.json.decode(body, type=Lease)
    assert ([node.node for node in narrowed.nodes], narrowed.cloud) == (["edge-fra"], "")


@pytest.fixture
def geoip(tmp_path: Path) -> Path:
    """A database that takes 198.51.100.0/24 for Tokyo's, within 50 km."""
    path = tmp_path / "city.mmdb"
    path.write_bytes(databases.city({"198.51.100.0/24": databases.TOKYO}))
    return path


@pytest.fixture
async def placed(router: Route, geoip: Path) -> Client:
    nodes = [static("edge-fra", "http://fra:1"), static("edge-nrt", "http://nrt:1", TOKYO, region="ap-northeast")]
    return await router(nodes, [], geoip_database=str(geoip), trusted_proxies=("127.0.0.1",))


async def leased(client: Client, address: str, **asked: object) -> list[str]:
    """The nodes of a lease, best first, for a caller behind a trusted proxy."""
    body = json.dumps({"model": "digits"} | asked).encode()
    lease = await client.json("POST", "/v1/route", body=body, sent={"X-Forwarded-For": address})
    return [node["node"] for node in lease["nodes"]]


async def test_round_trips_that_callers_measured_correct_a_wrong_place(placed: Client) -> None:
    assert await leased(placed, "198.51.100.7") == ["edge-nrt", "edge-fra"]
    for _ in range(40):
        await leased(placed, "198.51.100.7", measured_ms={"edge-nrt": 240.0, "edge-fra": 9, "edge-moon": 1.0})
    assert await leased(placed, "198.51.100.200") == ["edge-fra", "edge-nrt"]
    told = await placed.json("GET", "/v1/explain?model=digits&ip=198.51.100.1")
    assert (told["place_source"], told["place_error_km"]) == ("geoip", 50.0)
    near, far = told["candidates"]
    assert (near["node"], near["measured_rtt_ms"], near["samples"]) == ("edge-fra", 9.0, 40)
    assert near["prior_rtt_ms"] > 100
    assert near["leased"]["rtt_ms"] == pytest.approx((5 * near["prior_rtt_ms"] + 40 * 9.0) / 45)
    assert (far["node"], far["measured_rtt_ms"], far["prior_rtt_ms"] < 2) == ("edge-nrt", 240.0, True)


async def test_a_place_without_an_address_is_explained_by_its_distance_alone(placed: Client) -> None:
    for _ in range(40):
        await leased(placed, "127.0.0.1", place={"lat": 35.7, "lon": 139.7}, measured_ms={"edge-nrt": 240.0})
    told = await placed.json("GET", "/v1/explain?model=digits&lat=35.7&lon=139.7")
    assert (told["address"], told["place"], told["place_source"]) == ("", {"lat": 35.7, "lon": 139.7}, "caller")
    assert told["place_error_km"] == 0.0
    assert [(each["node"], each["measured_rtt_ms"], each["samples"]) for each in told["candidates"]] == [
        ("edge-nrt", None, 0),
        ("edge-fra", None, 0),
    ]
    both = await placed.json("GET", "/v1/explain?model=digits&ip=127.0.0.1&lat=35.7&lon=139.7")
    assert [each["samples"] for each in both["candidates"]] == [0, 40]


async def test_two_forwarding_headers_that_disagree_make_the_proxy_the_caller(placed: Client) -> None:
    sent = {"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=203.0.113.9"}
    told = await placed.json("GET", "/v1/explain?model=digits", sent=sent)
    assert (told["address"], told["place"]) == ("127.0.0.1", None)
    agreed = await placed.json("GET", "/v1/explain?model=digits", sent=sent | {"Forwarded": "for=198.51.100.7"})
    assert (agreed["address"], agreed["place_source"]) == ("198.51.100.7", "geoip")


async def test_a_database_that_is_replaced_counts_without_a_restart(placed: Client, geoip: Path) -> None:
    assert await leased(placed, "198.51.100.7") == ["edge-nrt", "edge-fra"]
    databases.put(geoip, databases.city({"198.51.100.0/24": databases.LONDON}))
    for _ in range(200):
        if await leased(placed, "198.51.100.7") == ["edge-fra", "edge-nrt"]:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the new database never counted")


@pytest.mark.parametrize(
    "measured_ms",
    [
        '{"edge-fra": -1}',
        '{"edge-fra": 10000.1}',
        '{"edge-fra": 1e999}',
        '{"edge-fra": NaN}',
        '{"edge-fra": null}',
        '{"edge-fra": "1"}',
        '{"Edge fra": 1}',
        '{"edge-fra\\n": 1}',
        '{"": 1}',
        "[1]",
        json.dumps({f"edge-{number}": 1.0 for number in range(17)}),
    ],
)
async def test_round_trips_out_of_bounds_are_refused(placed: Client, measured_ms: str) -> None:
    body = f'{{"model": "digits", "measured_ms": {measured_ms}}}'.encode()
    response, told = await placed.ask("POST", "/v1/route", body=body)
    assert refusal_of(response, told).code == "bad_request"


@pytest.mark.parametrize("place", ['{"lat": 91, "lon": 0}', '{"lat": 0, "lon": 1e999}', '{"lat": NaN, "lon": 0}', "[]"])
async def test_a_place_off_the_earth_is_refused(placed: Client, place: str) -> None:
    body = f'{{"model": "digits", "place": {place}}}'.encode()
    response, told = await placed.ask("POST", "/v1/route", body=body)
    assert refusal_of(response, told).code == "bad_request"


async def test_an_address_nobody_knows_gets_a_lease_by_load(client: Client) -> None:
    lease = await client.json("POST", "/v1/route", body=b'{"model": "digits"}')
    assert lease["place"] is None
    assert lease["nodes"][0]["node"] == "edge-fra"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"model": 1}', b'{"model": "digits", "modle": 1}', b"\xff", b"[" * 9999]
)
async def test_a_question_out_of_form_is_a_400(client: Client, body: bytes) -> None:
    response, told = await client.ask("POST", "/v1/route", body=body)
    assert refusal_of(response, told).code == "bad_request"


async def test_any_bytes_as_a_question_get_a_lease_or_a_contract_error(client: Client) -> None:
    loop = asyncio.get_running_loop()

    async def ask(body: bytes, residency: str) -> None:
        response, told = await client.ask("POST", "/v1/route", body=body, sent={headers.RESIDENCY: residency})
        if response.status == 200:
            msgspec.json.decode(told, type=Lease)
        else:
            assert refusal_of(response, told).code in ("bad_request", "bad_header", "residency_denied")

    bodies = st.one_of(
        st.binary(max_size=200),
        st.fixed_dictionaries({"model": st.text(max_size=20)}, optional={"candidates": st.integers()}).map(
            lambda question: json.dumps(question).encode()
        ),
    )
    printable = st.text(alphabet=[chr(code) for code in range(33, 127)], min_size=1, max_size=30)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, printable)
    def fuzz(body: bytes, residency: str) -> None:
        asyncio.run_coroutine_threadsafe(ask(body, residency), loop).result(10)

    await asyncio.to_thread(fuzz)


async def test_who_prefers_it_is_sent_to_a_node(client: Client, edge: Server) -> None:
    response, _ = await client.predict({"Prefer": "respond-async, foothill-redirect"})
    assert response.status == 307
    assert response.headers["Location"] == f"{edge.url}/v1/predict/digits"
    assert response.headers["Preference-Applied"] == "foothill-redirect"
    assert edge.seen == []


async def test_a_redirect_without_a_node_is_answered_instead(router: Route, cloud: Server) -> None:
    client = await router([], [cloud.url])
    response, _ = await client.predict({"Prefer": "foothill-redirect"})
    assert (response.status, response.headers[headers.TIER]) == (200, "cloud")


async def test_explain_shows_scores_and_what_speaks_against(router: Route) -> None:
    nodes = [
        static("edge-fra", "http://fra:1"),
        static("edge-nrt", "http://nrt:1", TOKYO, region="ap-northeast"),
        static("edge-other", "http://other:1", model="faces"),
    ]
    client = await router(nodes, ["http://cloud:1"], cloud_region="eu-west", region="eu-west")
    told = await client.json("GET", "/v1/explain?model=digits&ip=10.0.0.1&residency=eu-central")
    found = {each["node"]: each for each in told["candidates"]}
    assert (told["address"], told["place"], told["cloud"]) == ("10.0.0.1", None, False)
    assert found["edge-fra"]["leased_refusal"] is None
    assert found["edge-fra"]["proxied"]["total_ms"] > found["edge-fra"]["proxied"]["rtt_ms"] > 5
    assert found["edge-nrt"]["proxied_refusal"] == "outside-residency"
    assert found["edge-other"]["proxied_refusal"] == "not-serving"
    for query in ("", "?model=digits&ip=nowhere", "?model=digits&residency=!"):
        response, body = await client.ask("GET", f"/v1/explain{query}")
        assert refusal_of(response, body).code in ("bad_request", "bad_header")


@pytest.mark.parametrize(
    "place", ["lat=1", "lon=1", "lat=&lon=", "lat=nan&lon=1", "lat=1&lon=inf", "lat=91&lon=0", "lat=north&lon=0"]
)
async def test_a_place_off_the_earth_is_not_explained(client: Client, place: str) -> None:
    response, body = await client.ask("GET", f"/v1/explain?model=digits&{place}")
    error = refusal_of(response, body)
    assert (error.code, "give both, in degrees" in error.message) == ("bad_request", True)


async def test_a_models_facts_come_from_who_serves_it(client: Client, edge: Server, cloud: Server) -> None:
    for about in ("", "/ready", "/config", "/versions/1", "/versions/1/config"):
        told = await client.json("GET", f"/v2/models/digits{about}")
        assert told["node"] == "edge-fra"
    assert (await client.json("GET", "/v2/models/faces"))["node"] == "cloud"
    edge.status = 503
    assert (await client.json("GET", "/v2/models/digits"))["node"] == "cloud"


async def test_the_index_is_the_union_and_statistics_are_of_all_models(client: Client, cloud: Server) -> None:
    index = await client.json("POST", "/v2/repository/index", body=b"")
    assert {(entry["name"], entry["version"]) for entry in index} == {("digits", "1"), ("digits", "9")}
    statistics = await client.json("GET", "/v2/models/stats")
    assert statistics == {"model_stats": [{"name": "digits", "node": "edge-fra"}]}
    cloud.status = 503
    ready = await client.json("POST", "/v2/repository/index", body=b'{"ready": true}')
    assert [entry["state"] for entry in ready] == ["READY"]


async def test_an_index_of_nonsense_is_the_upstreams_mistake_and_costs_only_its_own_part(
    client: Client, cloud: Server, edge: Server
) -> None:
    cloud.raw = edge.raw = b'{"versions": ["\xff"], "model_stats": "\xff"}'
    index = await client.json("POST", "/v2/repository/index", body=b"")
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [("digits", "", "READY")]
    response, body = await client.ask("GET", "/v2/models/stats")
    assert (response.status, refusal_of(response, body).code) == (502, "upstream_failed")


def test_a_model_is_ready_where_any_part_is_ready() -> None:
    listed = [
        IndexEntry("digits", "1", "READY"),
        IndexEntry("digits", "1", "UNAVAILABLE", "its nodes are away"),
        IndexEntry("digits", "", "UNAVAILABLE", "not loaded yet"),
        IndexEntry("faces", "", "UNAVAILABLE", "not loaded yet"),
    ]
    expected = [listed[0], listed[3]]
    assert united(listed) == united(listed[::-1]) == expected


@pytest.mark.parametrize("path", ["/v1/predict/faces", "/v2/models/faces/infer", "/v1/route"])
async def test_a_model_that_no_node_has_is_not_found_where_there_is_no_cloud(
    router: Route, start: Start, path: str
) -> None:
    edge = await start("edge-fra")
    client = await router([static("edge-fra", edge.url)], [])
    response, body = await client.ask("POST", path, body=b'{"model":"faces"}')
    told = refusal_of(response, body)
    assert (response.status, told.code, told.retryable) == (404, "model_not_found", False)
    assert "Served now: digits" in told.message
    response, body = await client.ask("POST", path, body=b'{"model":"faces"}', sent={headers.RESIDENCY: "mars"})
    assert (response.status, refusal_of(response, body).code) == (403, "residency_denied")
    assert (await client.ask("GET", "/v2/models/faces"))[0].status == 404
    assert not edge.seen
    unknowing = await router([], [])
    response, body = await unknowing.ask("POST", path, body=b'{"model":"faces"}')
    assert (response.status, refusal_of(response, body).code) == (503, "unavailable")


async def test_a_node_that_lost_the_model_says_so_itself(router: Route, start: Start) -> None:
    edge = await start("edge-fra")
    edge.status = 404
    client = await router([static("edge-fra", edge.url)], [])
    response, body = await client.predict()
    assert (response.status, refusal_of(response, body).source) == (404, "edge-fra")


async def test_a_router_loads_no_models(client: Client) -> None:
    for action in ("load", "unload"):
        response, body = await client.ask("POST", f"/v2/repository/models/digits/{action}", body=b"{}")
        assert refusal_of(response, body).code == "forbidden"


async def test_the_router_tells_of_itself(client: Client) -> None:
    server = await client.json("GET", "/v2")
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("foothill-router", True)
    assert await client.json("GET", "/v2/health/live") == {"live": True}
    assert await client.json("GET", "/v2/health/ready") == {"ready": True}
    health = await client.json("GET", "/healthz")
    assert (health["status"], health["nodes"], health["models"], health["broker"]) == (
        "ok",
        {"online": 1},
        ["digits"],
        None,
    )


async def test_a_router_with_nowhere_to_send_is_not_ready(router: Route) -> None:
    client = await router([], [])
    response, body = await client.ask("GET", "/v2/health/ready")
    assert (response.status, refusal_of(response, body).code) == (503, "unavailable")


async def test_requests_are_counted_however_they_end_and_made_up_models_are_no_labels(client: Client) -> None:
    await client.predict()
    for number in range(5):
        await client.ask("POST", f"/v1/predict/made-up-{number}", body=b"x", sent={headers.DEADLINE_MS: "x"})
    _, text = await client.ask("GET", "/metrics")
    told = text.decode()
    assert 'foothill_requests_total{model="digits",part="router",reason="no-confidence"' in told
    assert 'model="other",part="router",reason="bad_header",route="predict",status="400",tier="none"} 5.0' in told
    assert "made-up" not in told
    assert 'foothill_router_nodes{state="online"} 1.0' in told
    assert 'foothill_in_flight{part="router"} 0.0' in told


async def test_a_path_or_method_of_nobody_has_the_contracts_error(client: Client) -> None:
    for method, path, code in (("GET", "/nowhere", "not_found"), ("GET", "/v1/predict/digits", "method_not_allowed")):
        response, body = await client.ask(method, path)
        assert refusal_of(response, body).code == code
