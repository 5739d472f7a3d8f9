"""What callers see of the queue, over real sockets: order, early refusals, hang-ups, overload, neighbours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton

from runtime.serving.models.hosting import ModelHost
from tests.runtime.raw_caller import RawCaller, post
from tests.runtime.serving.answering.test_answers import AS_BINARY, binary
from tests.runtime.serving.bundle_factory import make_lookup
from tests.runtime.serving.conftest import Load, Serve
from tests.runtime.serving.scripted import Scripted, scripted
from tests.runtime.serving.test_app import PNG, picture

INFER = "/v2/models/lookup/infer"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


class Told(NamedTuple):
    status: int
    body: dict[str, Any]
    retry_after: str | None
    seconds: float


async def ask(
    session: aiohttp.ClientSession, url: str, index: int = 0, *, deadline_ms: float = 30_000, **parameters: int
) -> Told:
    question = {
        "inputs": [{"name": "index", "shape": [1, 1], "datatype": "INT64", "data": [index]}],
        "parameters": parameters,
    }
    sent = {"Foothill-Deadline-Ms": str(deadline_ms)}
    began_s = time.monotonic()
    async with session.post(url + INFER, json=question, headers=sent) as answer:
        body = await answer.json()
    return Told(answer.status, body, answer.headers.get("Retry-After"), time.monotonic() - began_s)


async def until(true: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not true():  # noqa: ASYNC110 - the server has no event for what a test waits for
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 30)


async def test_priorities_come_first_and_then_the_earliest_deadline(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    engine = Scripted(gated=True)
    await host.activate("lookup", scripted(load(make_lookup), engine, seconds=0.01))
    url, served = await serve(), host.get("lookup")
    asked = [asyncio.create_task(ask(session, url, 0))]
    await until(lambda: len(engine.seen) == 1)
    later = [
        (1, {"priority": 3}, 30_000),
        (2, {}, 29_000),
        (3, {"timeout": 25_000_000}, 30_000),
        (0, {"priority": 1}, 30_000),
    ]
    for waiting, (index, parameters, deadline_ms) in enumerate(later, 1):
        asked.append(asyncio.create_task(ask(session, url, index, deadline_ms=deadline_ms, **parameters)))
        await until(partial(lambda count: served.batcher.waiting == count, waiting))
    engine.let(5)
    assert {told.status for told in await asyncio.gather(*asked)} == {200}
    assert [index for run in engine.seen for index in run] == [0, 0, 3, 2, 1]


async def test_tritonclient_sets_the_priority(host: ModelHost, load: Load, serve: Serve) -> None:
    engine = Scripted()
    await host.activate("lookup", scripted(load(make_lookup), engine, seconds=0.01))
    url = await serve()

    def question() -> list[str]:
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            index = triton.InferInput("index", [1, 1], "INT64")
            index.set_data_from_numpy(np.array([[2]]))
            assert client.infer("lookup", [index], priority=1, timeout=10_000_000).as_numpy("logits").argmax() == 2
            extensions: list[str] = client.get_server_metadata()["extensions"]
            return extensions

    assert "schedule_policy" in await asyncio.to_thread(question)


async def test_what_cannot_be_in_time_is_refused_at_once_and_never_runs(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    engine = Scripted(gated=True)
    await host.activate("lookup", scripted(load(make_lookup), engine, seconds=20.0))
    url = await serve()
    first = asyncio.create_task(ask(session, url, 1, deadline_ms=100_000))
    await until(lambda: len(engine.seen) == 1)
    never, queued = await asyncio.gather(
        ask(session, url, 2, deadline_ms=10_000), ask(session, url, 3, deadline_ms=45_000)
    )
    assert (never.status, never.body["code"], never.retry_after) == (504, "deadline_exceeded", None)
    assert (queued.status, queued.body["code"]) == (503, "overloaded")
    # 20 s of the run under way and 30 s to be sure of its own, less the 45 s it has.
    assert 1 <= int(queued.retry_after or 0) <= 5
    assert max(never.seconds, queued.seconds) < 10
    engine.let()
    assert (await first).status == 200
    assert engine.seen == [[1]]
    async with session.get(f"{url}/metrics") as metrics:
        text = await metrics.text()
    assert 'foothill_model_refusals_total{model="lookup",reason="late"} 1.0' in text
    assert 'foothill_model_refusals_total{model="lookup",reason="no-time"} 1.0' in text
    assert 'foothill_model_batch_rows_bucket{le="1.0",model="lookup"} 1.0' in text
    assert 'foothill_model_waiting{model="lookup"} 0.0' in text


@pytest.mark.parametrize("route", ["infer", "predict"])
async def test_who_cannot_be_answered_in_time_need_not_send_the_rest_of_a_body(
    host: ModelHost, load: Load, serve: Serve, route: str
) -> None:
    """A form that is known, and a picture: of both it is plain what they would ask of the engine."""
    engine = Scripted(gated=True)
    await host.activate("lookup", scripted(load(make_lookup), engine, seconds=0.01))
    await host.activate("digits", load())
    url = await serve()
    model = host.models["lookup" if route == "infer" else "digits"]
    body, named = binary(1, **AS_BINARY) if route == "infer" else (picture(), PNG)
    path = INFER if route == "infer" else "/v1/predict/digits"
    caller = await RawCaller.connect(url)
    engine.let(1)
    await caller.send(with_headers(post(path, body), named))
    assert (await caller.answer()).status == 200
    for size in model.batcher.schedule.times.sizes:
        model.batcher.schedule.times.measured(size, 20.0)
    await caller.send(with_headers(post(path, body, Foothill_Deadline_Ms="5000"), named)[:-1])
    told = await caller.answer()
    assert (told.status, json.loads(told.body)["code"]) == (504, "deadline_exceeded")
    assert model.batcher.schedule.refused["no-time"] == 1
    assert model.statistics.inference_stats.fail.count == 1
    await caller.send(body[-1:] + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await caller.answer()).status == 200
    await caller.close()


def with_headers(request: bytes, named: Mapping[str, str]) -> bytes:
    head, _, rest = request.partition(b"\r\n\r\n")
    return b"\r\n".join([head, *[f"{name}: {value}".encode() for name, value in named.items()], b"", rest])


async def test_a_caller_that_hangs_up_is_not_run_and_not_run_on(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    engine = Scripted(gated=True)
    await host.activate("lookup", scripted(load(make_lookup), engine, seconds=0.01))
    url, served = await serve(), host.get("lookup")
    running = asyncio.create_task(ask(session, url, 1))
    await until(lambda: len(engine.seen) == 1)
    waiting = asyncio.create_task(ask(session, url, 2))
    await until(lambda: served.batcher.waiting == 1)
    waiting.cancel()
    await until(lambda: served.batcher.waiting == 0)
    running.cancel()
    await until(lambda: engine.interrupts == 1)
    await asyncio.gather(running, waiting, return_exceptions=True)
    engine.let()
    assert (await ask(session, url, 3)).status == 200
    assert engine.seen == [[1], [3]]
    assert served.batcher.schedule.refused["gone"] == 2


async def test_twice_the_load_is_answered_in_time_or_refused_early(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    """The figures are those of the simulation; here nothing may be late, and nobody may wait to be refused."""
    engine = Scripted(seconds=0.02)
    await host.activate("lookup", scripted(load(make_lookup), engine, seconds=0.02))
    url = await serve()
    asked = []
    for _ in range(150):
        asked.append(asyncio.create_task(ask(session, url, deadline_ms=1000)))
        await asyncio.sleep(0.01)
    told = await asyncio.gather(*asked)
    answered = [each for each in told if each.status == 200]
    refused = [each for each in told if each.status != 200]
    assert {each.body["code"] for each in refused} <= {"overloaded", "deadline_exceeded"}
    assert all(each.retry_after for each in refused if each.status == 503)
    assert len(answered) > 20
    # The clock of the test sees the way there and back too, on a machine that others use.
    assert max(each.seconds for each in answered) < 1.5
    assert host.get("lookup").batcher.waiting == 0


async def test_a_slow_model_leaves_a_fast_one_its_turns(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession
) -> None:
    slow, fast = Scripted(gated=True), Scripted(seconds=0.002)
    await host.activate("lookup", scripted(load(make_lookup), fast, seconds=0.002))
    await host.activate("slow", scripted(load(make_lookup, model="slow"), slow, seconds=1.0))
    url = await serve()

    async def ask_slow() -> int:
        question = {"inputs": [{"name": "index", "shape": [1, 1], "datatype": "INT64", "data": [0]}]}
        async with session.post(f"{url}/v2/models/slow/infer", json=question) as answer:
            return answer.status

    waiting = [asyncio.create_task(ask_slow()) for _ in range(3)]
    await until(lambda: len(slow.seen) == 1)
    assert {told.status for told in await asyncio.gather(*(ask(session, url) for _ in range(10)))} == {200}
    assert len(slow.seen) == 1
    slow.let(3)
    assert set(await asyncio.gather(*waiting)) == {200}
