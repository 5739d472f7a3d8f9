"""Predictions, headers, hops, deadlines and limits of the routes, over real sockets and real models."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import cv2
import msgspec
import numpy as np
import pytest

from contracts.manifest import Postprocess
from contracts.messages import Audit, Certificate
from contracts.predictions import Classification, Embedding, Prediction
from contracts.timing import parse_server_timing
from runtime.links.access.hop import sign_hop
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.answering.work import prefers_msgpack
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from tests.runtime.serving.bundle_factory import make_echo, make_lookup
from tests.runtime.serving.conftest import HOP_KEY, Load, Serve

PNG = {"Content-Type": "image/png"}
MSGPACK = {"Content-Type": "application/msgpack"}


def picture(size: int = 28, kind: str = ".png") -> bytes:
    pixels = np.random.default_rng(5).integers(0, 255, (size, size), dtype=np.uint8)
    return bytes(cv2.imencode(kind, pixels)[1])


def certain(label: int) -> list[float]:
    return [60.0 if index == label else 0.0 for index in range(10)]


def packed(**tensors: np.ndarray) -> bytes:
    names = {"f": "FP32", "i": "INT64"}
    return msgspec.msgpack.encode(
        {
            name: {"datatype": names[array.dtype.kind], "shape": array.shape, "data": array.tobytes()}
            for name, array in tensors.items()
        }
    )


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_picture_becomes_a_typed_answer_in_json(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("digits", load(bias=certain(7)))
    url = await serve()
    for kind, media_type in ((".png", "image/png"), (".jpg", "image/jpeg")):
        sent = {"Content-Type": media_type, "Foothill-Request-Id": "my-1"}
        async with session.post(f"{url}/v1/predict/digits", data=picture(kind=kind), headers=sent) as answer:
            body = await answer.read()
        assert (answer.status, answer.content_type) == (200, "application/json")
        prediction = msgspec.json.decode(body, type=Prediction)
        assert isinstance(prediction, Classification)
        assert (prediction.label, prediction.model, prediction.bundle) == ("7", "digits", "digits-edge@1")
        assert (prediction.tier, prediction.node, prediction.reason) == ("edge", "fra-1", "unsettled")
        assert prediction.request_id == answer.headers["Foothill-Request-Id"] == "my-1"
        assert prediction.confidence == float(answer.headers["Foothill-Confidence"]) > 0.99
        assert [scored.label for scored in prediction.top][:1] == ["7"]
        assert len(prediction.top) == 5


async def test_every_header_of_the_contract_is_on_an_answer_and_no_hop_only_one(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    loaded = load()
    await host.activate("digits", loaded)
    async with session.post(f"{await serve()}/v1/predict/digits", data=picture(), headers=PNG) as answer:
        named = answer.headers
    assert named["Foothill-Stratum"] == loaded.stratum
    assert named["Foothill-Digest"] == loaded.digest
    assert named["Foothill-Model"] == "digits-edge@1"
    assert (named["Foothill-Certified"], named["Foothill-Degraded"]) == ("false", "false")
    assert list(parse_server_timing(named["Server-Timing"])) == ["decode", "queue", "infer", "encode", "total"]
    phases = parse_server_timing(named["Server-Timing"])
    assert phases["total"] >= sum(value for phase, value in phases.items() if phase != "total") * 0.9
    assert not {"Foothill-Load", "Foothill-Answer"} & set(named)


async def test_messagepack_in_and_out(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("lookup", load(make_lookup))
    await host.activate("echo", load(make_echo, datatypes=("FP32",)))
    url = await serve()
    sent = MSGPACK | {"Accept": "application/msgpack"}
    async with session.post(f"{url}/v1/predict/lookup", data=packed(index=np.array([[2]])), headers=sent) as answer:
        assert answer.content_type == "application/msgpack"
        prediction = msgspec.msgpack.decode(await answer.read(), type=Prediction)
    assert isinstance(prediction, Classification)
    assert prediction.label == "c"
    assert prediction.confidence is None
    assert "Foothill-Confidence" not in answer.headers
    vector = np.array([[0.5, -2]], np.float32)
    async with session.post(f"{url}/v1/predict/echo", data=packed(x_FP32=vector), headers=MSGPACK) as answer:
        embedding = msgspec.json.decode(await answer.read(), type=Prediction)
    assert isinstance(embedding, Embedding)
    assert embedding.vector == (0.5, -2.0)


REFUSED: list[tuple[str, str, bytes, dict[str, str], int, str, str]] = [
    ("unknown model", "nope", b"", PNG, 404, "model_not_found", "Served: boxes, detector, digits, echo, lookup"),
    ("no picture", "digits", b"junk", PNG, 400, "bad_image", "does not start like image/png"),
    ("half a picture", "digits", picture()[:80], PNG, 400, "bad_image", "Is the file whole"),
    ("form", "digits", picture(), {"Content-Type": "application/x-www-form-urlencoded"}, 415,
     "unsupported_media_type", "takes image/jpeg, image/png, application/msgpack"),
    ("picture for tensors", "lookup", picture(), PNG, 415, "unsupported_media_type", "takes application/msgpack, not"),
    ("no map", "lookup", b"\x91\x01", MSGPACK, 400, "bad_request", "no map of input name"),
    ("other tensor", "lookup", packed(wrong=np.array([[1]])), MSGPACK, 400, "bad_tensor", "expected 'index'"),
    ("other shape", "lookup", packed(index=np.array([1])), MSGPACK, 400, "bad_tensor", "shape [batch,1]"),
    ("two rows", "lookup", packed(index=np.array([[1], [2]])), MSGPACK, 400, "bad_tensor", "1 row, got 2"),
    ("tensors", "boxes", packed(x_FP32=np.array([[1, 2]], np.float32)), MSGPACK, 400, "bad_request", "no head that"),
    ("a detector", "detector", packed(index=np.array([[1]])), MSGPACK, 400, "bad_request", "defines no head"),
    ("deadline", "digits", picture(), PNG | {"Foothill-Deadline-Ms": "-1"}, 400, "bad_header", "above 0"),
    ("escalation", "digits", picture(), PNG | {"Foothill-Escalation": "x"}, 400, "bad_header", "auto, never, always"),
    ("too large", "digits", bytes(70_000), PNG, 413, "body_too_large", "more than 65536 bytes"),
    ("engine", "lookup", packed(index=np.array([[99]])), MSGPACK, 400, "bad_tensor", "model refuses"),
    ("no number", "digits", packed(image=np.full((1, 1, 8, 8), np.nan, np.float32)), MSGPACK, 400,
     "bad_tensor", "NaN or infinite"),
    ("no number back", "echo", packed(x_FP32=np.full((1, 2), np.inf, np.float32)), MSGPACK, 400,
     "bad_tensor", "NaN or infinite"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "body", "sent", "status", "code", "says"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
async def test_what_cannot_be_answered_is_refused_in_form(
    host: ModelHost,
    load: Load,
    serve: Serve,
    session: aiohttp.ClientSession,
    model: str,
    body: bytes,
    sent: dict[str, str],
    status: int,
    code: str,
    says: str,
) -> None:
    await host.activate("digits", load())
    await host.activate("lookup", load(make_lookup))
    await host.activate("detector", load(make_lookup, model="detector", task="detection"))
    await host.activate("echo", load(make_echo, datatypes=("FP32",)))
    bare = Postprocess("y_FP32", "tensors")
    await host.activate(
        "boxes", load(make_echo, datatypes=("FP32",), model="boxes", task="detection", postprocess=bare)
    )
    url = await serve(max_body_bytes=65_536)
    async with session.post(f"{url}/v1/predict/{model}", data=body, headers=sent) as answer:
        told = json.loads(await answer.read())
    assert (answer.status, told["code"]) == (status, code)
    assert says in told["message"]
    assert set(told) == {"code", "message", "source", "retryable", "request_id"}
    assert answer.headers["Foothill-Node"] == told["source"] == "fra-1"
    assert parse_server_timing(answer.headers["Server-Timing"])["total"] > 0


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    ("region", "claim", "status"),
    [
        ("eu-west", "", 200),
        ("eu-west", "eu-west", 200),
        ("eu-west", "us-east, EU-West", 200),
        ("eu-west", "us-east", 403),
        ("eu-west", "eu", 403),
        ("", "", 200),
        ("", "eu-west", 403),
    ],
)
async def test_a_residency_claim_is_held_by_the_server_itself_whoever_sent_the_request_there(
    host: ModelHost,
    load: Load,
    serve: Serve,
    session: aiohttp.ClientSession,
    region: str,
    claim: str,
    status: int,
    marked: bool,
) -> None:
    await host.activate("lookup", load(make_lookup))
    url = await serve(region=region)
    sent = {"Foothill-Request-Id": "abc"} | ({"Foothill-Residency": claim} if claim else {})
    if marked:
        sent["Foothill-Hop"] = sign_hop(HOP_KEY, "router", "abc", time.time())
    tensors = {"inputs": [{"name": "index", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}
    async with session.post(
        f"{url}/v1/predict/lookup", data=packed(index=np.array([[1]])), headers=MSGPACK | sent
    ) as a:
        predicted, told = a.status, await a.json()
    async with session.post(f"{url}/v2/models/lookup/infer", json=tensors, headers=sent) as answer:
        assert (predicted, answer.status) == (status, status)
    if status == 403:
        assert (told["code"], told["source"], told["retryable"]) == ("residency_denied", "fra-1", False)
        assert (region or "an unknown region") in told["message"]


async def test_a_body_without_a_length_is_bounded_too(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("digits", load())
    url = await serve(max_body_bytes=65_536)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(10_000)

    async with session.post(f"{url}/v1/predict/digits", data=endless(), headers=PNG) as answer:
        assert (answer.status, (await answer.json())["code"]) == (413, "body_too_large")


async def test_a_slow_body_meets_the_deadline(host: ModelHost, load: Load, serve: Serve) -> None:
    await host.activate("digits", load())
    url = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    head = "POST /v1/predict/digits HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nFoothill-Deadline-Ms: 30\r\n\r\n"
    writer.write(head.encode())
    assert b"504" in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_a_verified_hop_learns_load_and_answer_and_a_forged_one_does_not(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("lookup", load(make_lookup))
    url = await serve()
    body = packed(index=np.array([[2]]))
    for key, told in ((HOP_KEY, True), (b"x" * 32, False)):
        sent = MSGPACK | {
            "Foothill-Request-Id": "abc",
            "Foothill-Hop": sign_hop(key, "router", "abc", time.time()),
        }
        async with session.post(f"{url}/v1/predict/lookup", data=body, headers=sent) as answer:
            assert answer.status == 200
        assert ("Foothill-Load" in answer.headers) is told
        assert answer.headers.get("Foothill-Answer") == ("2" if told else None)
    assert answer.headers["Foothill-Reason"] == "unsettled"


@pytest.mark.parametrize(
    ("threshold", "asked", "tier", "reason", "label"),
    [
        (0.5, "auto", "edge", "confident", "1"),
        (1.1, "auto", "cloud", "doubtful", "2"),
        (0.5, "always", "cloud", "asked-always", "2"),
        (1.1, "never", "edge", "asked-never", "1"),
    ],
)
async def test_a_node_settles_what_callers_send_it_directly(
    host: ModelHost,
    load: Load,
    serve: Serve,
    session: aiohttp.ClientSession,
    threshold: float,
    asked: str,
    tier: str,
    reason: str,
    label: str,
) -> None:
    edge = load(bias=certain(1))
    cloud_host = ModelHost()
    await cloud_host.activate("digits", load(name="digits-cloud", tier="cloud", bias=certain(2)))
    await host.activate("digits", edge)
    holder, audits, close = await holder_of(edge.stratum, threshold, await cloud_url(cloud_host, serve))
    url = await serve(holder=holder)
    sent = PNG | {"Foothill-Escalation": asked, "Accept": "application/msgpack"}
    async with session.post(f"{url}/v1/predict/digits", data=picture(), headers=sent) as answer:
        prediction = msgspec.msgpack.decode(await answer.read(), type=Prediction)
    assert isinstance(prediction, Classification)
    named = answer.headers
    assert (prediction.tier, prediction.reason, prediction.label) == (tier, reason, label)
    assert (named["Foothill-Tier"], named["Foothill-Reason"]) == (tier, reason)
    assert named["Foothill-Node"] == prediction.node == ("cloud" if tier == "cloud" else "fra-1")
    assert named["Foothill-Model"] == ("digits-cloud@1" if tier == "cloud" else "digits-edge@1")
    assert ("escalate" in parse_server_timing(named["Server-Timing"])) is (tier == "cloud")
    assert not {"Foothill-Load", "Foothill-Answer", "Foothill-Hop"} & set(named)
    if tier == "cloud":
        assert [(audit.edge_answer, audit.cloud_answer, audit.kept) for audit in audits] == [("1", "2", False)]
    await close()
    await cloud_host.close()


async def cloud_url(cloud_host: ModelHost, serve: Serve) -> str:
    settings = ServingSettings(node="cloud", tier="cloud", hop_key=HOP_KEY)
    return await serve(app=create_app(cloud_host, settings, holder=None, telemetry=Telemetry()))


async def holder_of(stratum: str, threshold: float, cloud: str) -> tuple[Holder, list[Audit], Any]:
    audits: list[Audit] = []
    upstreams = Upstreams()
    certificate = Certificate(stratum, "digits", threshold, 0.05, 0.05, 100, "live", 1, time.time())
    holder = Holder(
        node="fra-1",
        cloud_urls=[cloud],
        upstreams=upstreams,
        certificates=Certificates([certificate]),
        hop_key=HOP_KEY,
        hop_name="node",
        publish_audit=audits.append,
        telemetry=Telemetry(),
        rng=random.Random(0),
        audit_rate=1.0,
    )

    async def close() -> None:
        await holder.close()
        await upstreams.close()

    return holder, audits, close


async def test_a_hop_that_holds_the_request_is_not_settled_here(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    edge = load(bias=certain(1))
    await host.activate("digits", edge)
    holder, audits, close = await holder_of(edge.stratum, 1.1, "http://127.0.0.1:1")
    url = await serve(holder=holder)
    sent = PNG | {"Foothill-Request-Id": "abc", "Foothill-Hop": sign_hop(HOP_KEY, "router", "abc", time.time())}
    async with session.post(f"{url}/v1/predict/digits", data=picture(), headers=sent) as answer:
        assert (answer.status, answer.headers["Foothill-Reason"]) == (200, "unsettled")
    async with session.post(f"{url}/v1/predict/digits", data=picture(), headers=PNG) as answer:
        assert (answer.status, answer.headers["Foothill-Reason"]) == (200, "cloud-failed")
        assert answer.headers["Foothill-Degraded"] == "true"
    assert not audits
    await close()


async def test_compressed_bodies_reach_the_cloud_as_they_were_meant(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    edge = load(bias=certain(1))
    cloud_host = ModelHost()
    await cloud_host.activate("digits", load(name="digits-cloud", tier="cloud", bias=certain(2)))
    await host.activate("digits", edge)
    holder, _, close = await holder_of(edge.stratum, 1.1, await cloud_url(cloud_host, serve))
    url = await serve(holder=holder)
    sent = PNG | {"Content-Encoding": "gzip"}
    async with session.post(f"{url}/v1/predict/digits", data=gzip.compress(picture()), headers=sent) as answer:
        assert answer.headers["Foothill-Tier"] == "cloud"
    await close()
    await cloud_host.close()


async def test_callers_that_go_away_leave_nothing_behind(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("digits", load())
    url = await serve()
    body = picture(1000)
    head = (
        f"POST /v1/predict/digits HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def vanish(sent: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(vanish(head.encode() + body[: len(body) if odd % 2 else 500]) for odd in range(20)))
    served = host.get("digits")
    await asyncio.wait_for(until(lambda: not served.in_flight and not served.batcher.waiting), 5)
    async with session.post(f"{url}/v1/predict/digits", data=body, headers=PNG) as answer:
        assert answer.status == 200


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - the server has no event for a caller that went away
        await asyncio.sleep(0.01)


async def test_requests_go_on_without_a_failure_while_bundles_are_switched(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("digits", load(version="0"))
    url = await serve()
    stop = asyncio.Event()
    seen: list[tuple[int, str]] = []

    async def client() -> None:
        while not stop.is_set():
            async with session.post(f"{url}/v1/predict/digits", data=picture(200), headers=PNG) as answer:
                seen.append((answer.status, answer.headers["Foothill-Model"]))

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for version in range(1, 6):
        await host.activate("digits", load(version=str(version)))
    stop.set()
    await asyncio.gather(*clients)
    assert {status for status, _ in seen} == {200}
    assert "digits-edge@5" in {model for _, model in seen}


async def test_a_request_that_fails_half_way_tells_and_counts_the_phases_it_had(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("digits", load())
    url = await serve()
    async with session.post(f"{url}/v1/predict/digits", data=b"no picture", headers=PNG) as answer:
        assert answer.status == 400
        assert list(parse_server_timing(answer.headers["Server-Timing"])) == ["decode", "total"]
    async with session.get(f"{url}/metrics") as answer:
        assert 'count{model="digits",part="edge",phase="decode",region="",tier="edge"} 1.0' in await answer.text()


async def test_metrics_count_requests_and_phases_with_bounded_labels(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("digits", load())
    url = await serve()
    for model in ("digits", "made-up-1", "made-up-2"):
        async with session.post(f"{url}/v1/predict/{model}", data=picture(), headers=PNG) as answer:
            await answer.read()
    async with session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    assert 'route="predict",status="200",tier="edge"' in text
    assert 'model="other",part="edge",reason="model_not_found",route="predict",status="404"' in text
    assert 'foothill_phase_seconds_count{model="digits",part="edge",phase="infer",region="",tier="edge"} 1.0' in text
    assert 'foothill_phase_seconds_count{model="digits",part="edge",phase="total",region="",tier="edge"} 1.0' in text
    assert 'foothill_phase_seconds_count{model="other",part="edge",phase="total",region="",tier="edge"} 2.0' in text
    assert "made-up" not in text


async def test_health_tells_what_is_served_and_ready_waits_for_it(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    url = await serve()
    async with session.get(f"{url}/v2/health/ready") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    await host.activate("digits", load())
    async with session.get(f"{url}/v2/health/ready") as answer:
        assert answer.status == 200
    async with session.get(f"{url}/healthz") as answer:
        health = await answer.json()
    assert health["models"]["digits"]["bundle"] == "digits-edge@1"
    assert (health["node"], health["tier"], health["ready"]) == ("fra-1", "edge", True)


@pytest.mark.parametrize(
    ("accept", "msgpack"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/msgpack", True),
        ("application/msgpack;q=0.9, application/json;q=0.1", True),
        ("application/json, application/msgpack", False),
        ("text/html, APPLICATION/MSGPACK", True),
    ],
)
def test_the_form_of_the_answer_follows_accept(accept: str, msgpack: bool) -> None:
    assert prefers_msgpack(accept) is msgpack


async def test_long_json_is_read_and_written_off_the_event_loop(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    await host.activate("echo", load(make_echo, datatypes=("FP64",), max_batch=4096))
    url = await serve()
    data = np.random.default_rng(0).random((4096, 2))
    given = {"name": "x_FP64", "shape": [4096, 2], "datatype": "FP64", "data": data.ravel().tolist()}
    async with session.post(f"{url}/v2/models/echo/infer", json={"inputs": [given]}) as answer:
        (output,) = (await answer.json())["outputs"]
    assert (answer.status, output["data"]) == (200, data.ravel().tolist())
    given["data"] = ["no number"] * 8192
    async with session.post(f"{url}/v2/models/echo/infer", json={"inputs": [given]}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_tensor")
