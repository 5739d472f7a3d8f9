"""One story on two ways: a request is answered alike past aiohttp and through it, and one given up leaves nothing."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import cv2
import numpy as np
import pytest

from contracts.messages import Certificate
from runtime.links.access.admission import Admission
from runtime.links.access.hop import sign_hop
from runtime.links.access.tokens import TokenFile, hash_of
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.upstream import Answer, Request, Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.calls import Call
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from tests.runtime.raw_caller import RawCaller, Told, post, until
from tests.runtime.serving.bundle_factory import make_echo, make_lookup
from tests.runtime.serving.conftest import HOP_KEY, Load, Serve
from tests.runtime.serving.scripted import Scripted, scripted
from tests.runtime.serving.test_app import MSGPACK, PNG, certain, packed, picture

INFER = "/v2/models/lookup/infer"
Named = dict[str, str]


def question(*index: int, **more: Any) -> bytes:
    inputs = [{"name": "index", "shape": [len(index), 1], "datatype": "INT64", "data": [*index]}]
    return json.dumps({"inputs": inputs, **more}).encode()


def binary(*index: int, **more: Any) -> tuple[bytes, Named]:
    part = np.array(index, "<i8").tobytes()
    tensor = {"name": "index", "shape": [len(index), 1], "datatype": "INT64"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(part)}}], **more}).encode()
    return head + part, {"Inference-Header-Content-Length": str(len(head))}


AS_BINARY = {"parameters": {"binary_data_output": True}}
JSON = {"Content-Type": "application/json"}
DIGITS = "/v1/predict/digits"

REQUESTS: dict[str, tuple[str, bytes, Named]] = {
    "tensors as JSON": (INFER, question(1), JSON),
    "several rows": (INFER, question(3, 1, 2), JSON),
    "with an id": (INFER, question(1, id="a"), JSON),
    "binary tensors": (INFER, *binary(2, **AS_BINARY)),
    "binary rows": (INFER, *binary(2, 3, **AS_BINARY)),
    "binary, answered as JSON": (INFER, *binary(2)),
    "labels": (INFER, question(1, outputs=[{"name": "logits", "parameters": {"classification": 2}}]), JSON),
    "its version": ("/v2/models/lookup/versions/1/infer", question(1), JSON),
    "a picture": (DIGITS, picture(), PNG),
    "a large picture": (DIGITS, bytes(cv2.imencode(".png", np.zeros((600, 600), np.uint8))[1]), PNG),
    "a picture, answered in MessagePack": (DIGITS, picture(), PNG | {"Accept": "application/msgpack"}),
    "MessagePack": ("/v1/predict/lookup", packed(index=np.array([[2]])), MSGPACK),
    "text": ("/v2/models/echo/infer", json.dumps({"inputs": [
        {"name": "x_BYTES", "shape": [1, 2], "datatype": "BYTES", "data": ["é", "b"]}]}).encode(), JSON),
    "a hop's": (INFER, question(1), {"Foothill-Hop": sign_hop(HOP_KEY, "router", "r-1", time.time())}),
    "a forged hop's": (INFER, question(1), {"Foothill-Hop": sign_hop(b"x" * 32, "router", "r-1", time.time())}),
    "inside a claim": (INFER, question(1), {"Foothill-Residency": "eu"}),
    "repeated claims": (INFER, question(1), {"Foothill-Residency": "eu,us", "foothill-residency": "us"}),
    "outside a claim": (INFER, question(1), {"Foothill-Residency": "us"}),
    "another version": ("/v2/models/lookup/versions/2/infer", question(1), JSON),
    "no such model": ("/v2/models/nope/infer", question(1), JSON),
    "no such model to predict": ("/v1/predict/nope", b"", PNG),
    "dots": ("/v1/predict/..", b"", PNG),
    "no JSON": (INFER, b"{", JSON),
    "nothing": (INFER, b"", JSON),
    "another type of tensor": (INFER, question(1).replace(b"INT64", b"INT32"), JSON),
    "lengths that lie": (INFER, question(1), {"Inference-Header-Content-Length": "9999"}),
    "no length": (INFER, question(1), {"Inference-Header-Content-Length": "many"}),
    "refused by the engine": (INFER, question(99), JSON),
    "no picture": (DIGITS, b"junk", PNG),
    "half a picture": (DIGITS, picture()[:80], PNG),
    "no media type": (DIGITS, picture(), {}),
    "another media type": (DIGITS, picture(), {"Content-Type": "text/plain; é"}),
    "two rows to predict": ("/v1/predict/lookup", packed(index=np.array([[1], [2]])), MSGPACK),
    "no number": (DIGITS, packed(image=np.full((1, 1, 8, 8), np.nan, np.float32)), MSGPACK),
    "no deadline": (INFER, question(1), {"Foothill-Deadline-Ms": "soon"}),
    "no time": (INFER, question(1), {"Foothill-Deadline-Ms": "0.000001"}),
    "the protocol's timeout": (INFER, question(1, parameters={"timeout": 1}), JSON),
    "no wish": (INFER, question(1), {"Foothill-Escalation": "please"}),
    "no text in a header": (INFER, question(1), {"Foothill-Escalation": "\udcff"}),
    "too large": (DIGITS, bytes(70_000), PNG),
    "not from here": (INFER, question(1), {"Authorization": "Bearer wrong"}),
    "nobody": (INFER, question(1), {"Authorization": ""}),
}  # fmt: skip


KNOWN, LENGTH = binary(1, **AS_BINARY)
"""What goes the swift way once it was asked before."""

for _name in ("a hop's", "a forged hop's", "inside a claim", "repeated claims", "outside a claim", "another version",
              "no such model", "no deadline", "no time", "no wish", "no text in a header", "not from here",
              "nobody"):  # fmt: skip
    _target, _, _named = REQUESTS[_name]
    REQUESTS[f"{_name}, in a known form"] = (_target, KNOWN, LENGTH | _named)
REQUESTS |= {
    "its version, in a known form": ("/v2/models/lookup/versions/1/infer", KNOWN, LENGTH),
    "a timeout, in a known form": (INFER, *binary(1, parameters={"timeout": 1, "binary_data_output": True})),
    "time enough, in a known form": (INFER, *binary(1, parameters={"timeout": 9_000_000, "binary_data_output": True})),
    "a priority, in a known form": (INFER, *binary(1, parameters={"priority": 1, "binary_data_output": True})),
    "labels, in a known form": (INFER, *binary(1, outputs=[{"name": "logits", "parameters": {"classification": 2}}])),
    "refused by the engine, in a known form": (INFER, *binary(99, **AS_BINARY)),
    "another form of the same length": (INFER, KNOWN.replace(b"INT64", b"int64"), LENGTH),
    "a body that is short": (INFER, KNOWN[:-1], LENGTH),
    "a long deadline": (INFER, KNOWN, LENGTH | {"Foothill-Deadline-Ms": "9000"}),
}


@pytest.fixture
async def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def url(host: ModelHost, load: Load, serve: Serve, telemetry: Telemetry, tmp_path: Any) -> AsyncIterator[str]:
    """A node that asks who calls, and holds the requests of its callers."""
    await host.activate("digits", load(bias=certain(7)))
    await host.activate("lookup", load(make_lookup))
    await host.activate("echo", load(make_echo, datatypes=("BYTES",)))
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "me"\nsha256 = "{hash_of("t")}"\n')
    admission = Admission(tokens=TokenFile(tokens, time.monotonic), tickets=None, hop_key=HOP_KEY)
    upstreams = Upstreams()
    holder = holder_of(upstreams, telemetry, [])
    settings = ServingSettings(node="fra-1", tier="edge", hop_key=HOP_KEY, region="eu", max_body_bytes=1 << 16)
    app = create_app(host, settings, holder=holder, telemetry=telemetry, admission=admission)
    yield await serve(app=app)
    await holder.close()
    await upstreams.close()


def holder_of(upstreams: Upstreams, telemetry: Telemetry, certificates: list[Certificate], **options: Any) -> Holder:
    return Holder(
        node="fra-1",
        upstreams=upstreams,
        certificates=Certificates(certificates),
        hop_key=HOP_KEY,
        hop_name="node",
        publish_audit=lambda audit: None,
        telemetry=telemetry,
        rng=random.Random(0),
        audit_rate=0.0,
        **{"cloud_urls": [], **options},
    )


def wire(target: str, body: bytes, named: Named, *, chunked: bool) -> bytes:
    given = {"Authorization": "Bearer t", "Foothill-Request-Id": "r-1"} | named
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    head, _, rest = post(target, body, chunked=chunked).partition(b"\r\n\r\n")
    return head + b"\r\n" + lines.encode("utf-8", "surrogateescape") + b"\r\n" + rest


def lasting(told: Told) -> tuple[int, Named, bytes]:
    """Without what differs between two answers to the same request, and aiohttp's name for itself."""
    passing = {"date", "server", "server-timing", "foothill-load"}
    named = {name.lower(): value for name, value in told.headers.items() if name.lower() not in passing}
    return told.status, named, told.body


def counted(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Requests answered so far, by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for metric in telemetry.registry.collect()
        if metric.name == "foothill_requests"
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_give_the_same_answer_and_count_it_alike(url: str, telemetry: Telemetry, name: str) -> None:
    target, body, named = REQUESTS[name]
    caller, answers, counts = await RawCaller.connect(url), [], []
    # From a form that is new, and from one that is known; then not plainly, and so through aiohttp.
    for chunked in (False, False, True, True):
        before = counted(telemetry)
        await caller.send(wire(target, body, named, chunked=chunked))
        answers.append(await caller.answer())
        after = counted(telemetry)
        counts.append({labels: count - before.get(labels, 0) for labels, count in after.items()})
    assert [lasting(told) for told in answers[1:]] == [lasting(answers[0])] * 3
    assert [set(told.headers) & {"Server-Timing", "Foothill-Load", "Date"} for told in answers[1:]] == [
        set(answers[0].headers) & {"Server-Timing", "Foothill-Load", "Date"}
    ] * 3
    phases = [re.sub(r"=[0-9.e-]+", "", told.headers["Server-Timing"]) for told in answers]
    assert phases == phases[:1] * 4
    assert [{labels for labels, count in each.items() if count} for each in counts[1:]] == [
        {labels for labels, count in counts[0].items() if count}
    ] * 3
    assert [sum(each.values()) for each in counts] == [1] * 4
    assert telemetry.in_flight("edge").count == 0
    await caller.close()


async def test_those_requests_are_answered_in_all_sorts_of_ways(url: str) -> None:
    """So that the test above compares more than refusals of one kind."""
    caller, seen = await RawCaller.connect(url), set()
    for target, body, named in REQUESTS.values():
        await caller.send(wire(target, body, named, chunked=False))
        told = await caller.answer()
        seen.add((told.status, "" if told.status == 200 else json.loads(told.body)["code"]))
    assert {status for status, _ in seen} == {200, 400, 401, 403, 404, 413, 415, 504}
    assert len(seen) >= 11
    await caller.close()


async def test_they_are_alike_in_any_order_on_one_connection(url: str) -> None:
    alone: dict[str, tuple[int, Named, bytes]] = {}
    caller = await RawCaller.connect(url)
    for name, (target, body, named) in REQUESTS.items():
        await caller.send(wire(target, body, named, chunked=False))
        alone[name] = lasting(await caller.answer())
    for seed in range(3):
        order = [*REQUESTS] * 2
        random.Random(seed).shuffle(order)
        await caller.send(b"".join(wire(*REQUESTS[name], chunked=False) for name in order))
        for name in order:
            assert lasting(await caller.answer()) == alone[name]
    await caller.close()


class Held:
    """A node with the model `lookup` on an engine that waits, and a cloud that says nothing."""

    def __init__(self, url: str, host: ModelHost, telemetry: Telemetry, engine: Scripted) -> None:
        self.url = url
        self.host = host
        self.telemetry = telemetry
        self.engine = engine
        self.asked_cloud = asyncio.Event()
        self.others: list[RawCaller] = []

    @property
    def left(self) -> tuple[int, int, int, int]:
        """What is not done yet, by whoever counts it."""
        served = self.host.models["lookup"]
        batcher = served.batcher
        return self.telemetry.in_flight("edge").count, served.in_flight, batcher.waiting, len(batcher._open)

    @property
    def reasons(self) -> dict[str, float]:
        return {labels[4]: count for labels, count in counted(self.telemetry).items()}


Build = Callable[..., Awaitable[Held]]


@pytest.fixture
async def held(host: ModelHost, load: Load, serve: Serve, telemetry: Telemetry) -> AsyncIterator[Build]:
    upstreams, holders, servers = Upstreams(), [], []
    engine = Scripted(gated=True)

    async def build(**options: Any) -> Held:
        await host.activate("lookup", scripted(load(make_lookup), engine, seconds=0.01))
        held = Held("", host, telemetry, engine)

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            held.asked_cloud.set()
            if "spool" not in options:
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        servers.append(server)
        cloud = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        holder = holder_of(upstreams, telemetry, [], cloud_urls=[cloud])
        holders.append(holder)
        settings = ServingSettings(node="fra-1", tier="edge", max_body_bytes=1 << 20)
        held.url = await serve(app=create_app(host, settings, holder=holder, telemetry=telemetry, **options))
        return held

    yield build
    engine.let(1000)
    for holder in holders:
        await holder.close()
    await upstreams.close()
    for server in servers:
        server.close()


async def in_the_body(held: Held, caller: RawCaller, ask: bytes) -> None:
    await caller.send(ask[:-1])
    await until(lambda: held.left[0] == 1)


async def in_the_queue(held: Held, caller: RawCaller, ask: bytes) -> None:
    before = await RawCaller.connect(held.url)
    await before.send(post(INFER, question(0), Foothill_Escalation="never"))
    await until(lambda: len(held.engine.seen) == 1)
    await caller.send(ask)
    await until(lambda: held.left[2] == 1)
    held.others.append(before)


async def in_the_run(held: Held, caller: RawCaller, ask: bytes) -> None:
    await caller.send(ask)
    await until(lambda: len(held.engine.seen) == 1)


async def in_the_cloud(held: Held, caller: RawCaller, ask: bytes) -> None:
    held.engine.let()
    await caller.send(ask)
    await asyncio.wait_for(held.asked_cloud.wait(), 30)


STATES = [in_the_body, in_the_queue, in_the_run, in_the_cloud]


def in_a_known_form(escalation: str) -> bytes:
    length = LENGTH["Inference-Header-Content-Length"]
    return post(INFER, KNOWN, Inference_Header_Content_Length=length, Foothill_Escalation=escalation)


async def make_known(held: Held) -> None:
    first = await RawCaller.connect(held.url)
    held.engine.let()
    await first.send(in_a_known_form("never"))
    assert (await first.answer()).status == 200
    held.engine.seen.clear()
    held.others.append(first)


@pytest.mark.parametrize("way", ["plain", "chunked", "plain, with another behind it", "in a known form"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["vanishes", "closes"])
async def test_who_hangs_up_is_counted_once_and_leaves_nothing_behind(
    held: Build, state: Callable[[Held, RawCaller, bytes], Awaitable[None]], way: str, how: str
) -> None:
    node = await held()
    caller = await RawCaller.connect(node.url)
    ask = post(INFER, question(1), chunked=way == "chunked", Foothill_Escalation="always")
    if way == "in a known form":
        await make_known(node)
        ask = in_a_known_form("always")
    behind = post(INFER, question(2)) if way.endswith("behind it") and state is not in_the_body else b""
    await state(node, caller, ask + behind)
    if how == "vanishes":
        caller.vanish()
    else:
        await caller.close()
    # To aiohttp the end of a connection in the midst of a body is that of the body first.
    gone = "bad_request" if (state, way) == (in_the_body, "chunked") else "client-gone"
    await until(lambda: node.reasons.get(gone) == 1)
    node.engine.let(100)
    await until(lambda: node.left == (0, 0, 0, 0))
    fresh = await RawCaller.connect(node.url)
    await fresh.send(post(INFER, question(3), Foothill_Escalation="never"))
    assert (await fresh.answer()).status == 200
    assert node.reasons == {gone: 1, "asked-never": 1 + len(node.others)}
    assert node.left == (0, 0, 0, 0)
    assert node.host.models["lookup"].batcher.schedule.refused["gone"] == (state in (in_the_queue, in_the_run))
    for each in (fresh, *node.others):
        each.vanish()
    await caller.close()


class Stubborn:
    """A spool that lets nobody take it from its work."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.done = asyncio.Event()

    async def keep(self, call: Call, request: Request, edge: Answer) -> str:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.done.set()
        return ""


@pytest.mark.parametrize("way", ["plain", "chunked", "in a known form"])
async def test_who_is_gone_is_counted_once_even_when_the_work_for_it_goes_on(held: Build, way: str) -> None:
    spool = Stubborn()
    node = await held(spool=spool)
    node.engine.let(10)
    caller = await RawCaller.connect(node.url)
    ask = post(INFER, question(1), chunked=way == "chunked", Foothill_Escalation="always")
    if way == "in a known form":
        await make_known(node)
        ask = in_a_known_form("always")
    await caller.send(ask)
    await asyncio.wait_for(spool.asked.wait(), 30)
    caller.vanish()
    await asyncio.wait_for(spool.done.wait(), 30)
    await until(lambda: bool(node.reasons) and node.left == (0, 0, 0, 0))
    fresh = await RawCaller.connect(node.url)
    await fresh.send(post(INFER, question(3), Foothill_Escalation="never"))
    assert (await fresh.answer()).status == 200
    assert sum(node.reasons.values()) == 2 + len(node.others)
    assert node.left == (0, 0, 0, 0)
    for each in (fresh, *node.others):
        each.vanish()
