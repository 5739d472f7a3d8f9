"""Requests in a known form, many at once: each gets its own answer, is settled as any other, and none is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from aiohttp import web

from contracts.headers import ANSWER
from contracts.messages import Audit, Certificate
from contracts.tickets import Limits
from runtime.links.access.admission import Admission
from runtime.links.access.grants import Grant, Usage
from runtime.links.access.hop import sign_hop
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.pages import Pages
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.forms import Form
from runtime.serving.models.hosting import ModelHost
from tests.runtime.raw_caller import RawCaller, Told, post, until
from tests.runtime.serving.answering.test_answers import AS_BINARY, INFER, binary, counted
from tests.runtime.serving.bundle_factory import make_lookup
from tests.runtime.serving.conftest import HOP_KEY, Load, Serve
from tests.runtime.serving.scripted import Scripted, scripted

Array = npt.NDArray[Any]
CALLERS = 24
CLOUD_ANSWER = "7"


class Cloud:
    """Says always the same, at once, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked.append(request.headers["Foothill-Request-Id"])
        named = {"Foothill-Tier": "cloud", ANSWER: CLOUD_ANSWER, "Foothill-Request-Id": self.asked[-1]}
        return web.Response(body=b"cloud", headers=named)


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    cloud, app = Cloud(), web.Application()
    app.router.add_post(INFER, cloud.answer)
    runner, cloud.url = await start_app(app, "127.0.0.1", 0, name="cloud", drain_s=1.0)
    yield cloud
    await runner.cleanup()


class Node:
    def __init__(self, url: str, host: ModelHost, telemetry: Telemetry, audits: list[Audit]) -> None:
        self.url = url
        self.host = host
        self.telemetry = telemetry
        self.audits = audits

    @property
    def reasons(self) -> dict[str, float]:
        return {labels[4]: count for labels, count in counted(self.telemetry).items()}


Build = Callable[..., Any]


@pytest.fixture
async def build(host: ModelHost, load: Load, serve: Serve, cloud: Cloud) -> AsyncIterator[Build]:
    upstreams, holders = Upstreams(), list[Holder]()

    async def start(
        *, audit_rate: float = 0.0, threshold: float | None = None, hop_key: bytes | None = None, **options: Any
    ) -> Node:
        loaded = load(make_lookup, ruled=True)
        telemetry, audits = Telemetry(), list[Audit]()
        stratum = loaded.stratum
        certificates = [] if threshold is None else [certificate(stratum, threshold)]
        holder = Holder(
            node="fra-1",
            cloud_urls=[cloud.url],
            upstreams=upstreams,
            certificates=Certificates(certificates),
            hop_key=HOP_KEY,
            hop_name="node",
            publish_audit=audits.append,
            telemetry=telemetry,
            rng=random.Random(1),
            audit_rate=audit_rate,
        )
        holders.append(holder)
        await host.activate("lookup", loaded)
        settings = ServingSettings(node="fra-1", tier="edge", hop_key=hop_key)
        app = create_app(host, settings, holder=holder, telemetry=telemetry, **options)
        return Node(await serve(app=app), host, telemetry, audits)

    yield start
    for holder in holders:
        await holder.close()
    await upstreams.close()


def certificate(stratum: str, threshold: float) -> Certificate:
    return Certificate(stratum, "lookup", threshold, 0.1, 0.1, 1, "live", 1, 0.0)


class Graded(Scripted):
    """Surer of a row the larger its index is."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = super().run(inputs)
        return {"logits": outputs["logits"] * inputs["index"].astype(np.float32)}


async def ask(node: Node, *indices: int, **named: str) -> list[Told]:
    """All at once, each by a caller of its own, in a form that is known; their ids are their places."""
    callers = await asyncio.gather(*(RawCaller.connect(node.url) for _ in indices))
    await callers[0].send(question(0, "first", **named))
    await callers[0].answer()
    for place, (caller, index) in enumerate(zip(callers, indices, strict=True)):
        await caller.send(question(index, str(place), **named))
    answers = await asyncio.gather(*(caller.answer() for caller in callers))
    for caller in callers:
        await caller.close()
    return answers


async def ask_together(node: Node, engine: Graded, *indices: int, **named: str) -> list[Told]:
    """As `ask`; nobody is answered by the gated engine before all have come, so that they meet in runs."""
    asking = asyncio.create_task(ask(node, *indices, **named))
    engine.let()
    await until(lambda: node.host.models["lookup"].in_flight == len(indices))
    engine.let(len(indices))
    return await asking


def question(index: int, request_id: str, **named: str) -> bytes:
    body, length = binary(index, **AS_BINARY)
    told = {
        "Foothill-Request-Id": request_id,
        **length,
        **{name.replace("_", "-"): said for name, said in named.items()},
    }
    head, _, _ = post(INFER, body).partition(b"\r\n\r\n")
    lines = [head, *[f"{name}: {value}".encode() for name, value in told.items()]]
    return b"\r\n".join([*lines, b"", body])


def row(told: Told) -> list[float]:
    json_bytes = int(told.headers["Inference-Header-Content-Length"])
    return [float(value) for value in np.frombuffer(told.body[json_bytes:], "<f4")]


def graded(node: Node, *, gated: bool = False) -> Graded:
    """Puts an engine in for the real one: its runs are so long, whatever is in them, that requests meet in them."""
    engine = Graded(gated=gated, seconds=0.0005)
    times = scripted(node.host.models["lookup"].loaded, engine, seconds=0.0).times
    for size in times.sizes:
        times.measured(size, 0.002)
    return engine


async def test_each_gets_its_own_answer_out_of_a_shared_run(build: Build) -> None:
    node = await build()
    engine = graded(node, gated=True)
    indices = [place % 4 for place in range(CALLERS)]
    answers = await ask_together(node, engine, *indices, Foothill_Escalation="never")
    assert [row(told) for told in answers] == [(np.eye(4)[index] * index).tolist() for index in indices]
    assert [told.headers["Foothill-Request-Id"] for told in answers] == [*map(str, range(CALLERS))]
    assert len({told.headers["Foothill-Confidence"] for told in answers}) == 4
    assert max(map(len, engine.seen)) > 2
    assert node.reasons == {"asked-never": CALLERS + 1}
    stats = node.host.models["lookup"].statistics
    assert (stats.inference_count, stats.inference_stats.success.count) == (CALLERS + 1, CALLERS + 1)


async def test_the_sure_are_kept_under_the_certificate_and_the_doubtful_escalated(build: Build, cloud: Cloud) -> None:
    node = await build(threshold=0.6)
    graded(node)
    answers = await ask(node, *[place % 4 for place in range(CALLERS)])
    for place, told in enumerate(answers):
        sure = place % 4 >= 2
        assert told.headers["Foothill-Tier"] == ("edge" if sure else "cloud"), told.headers
        assert told.headers["Foothill-Reason"] == ("confident" if sure else "doubtful")
        assert told.headers["Foothill-Certified"] == "true"
        assert told.headers["Foothill-Request-Id"] == str(place)
    assert sorted(cloud.asked) == sorted(["first", *(str(place) for place in range(CALLERS) if place % 4 < 2)])


@pytest.mark.parametrize(("rate", "least", "most"), [(1.0, 1.0, 1.0), (0.3, 0.15, 0.45)])
async def test_audits_are_drawn_once_from_all_that_are_kept(
    build: Build, cloud: Cloud, rate: float, least: float, most: float
) -> None:
    node = await build(threshold=0.0, audit_rate=rate)
    graded(node)
    total = 5 * (CALLERS + 1)
    for _ in range(5):
        answers = await ask(node, *[place % 4 for place in range(CALLERS)])
        assert {told.headers["Foothill-Tier"] for told in answers} == {"edge"}
    await until(lambda: least * total <= len(node.audits) == len(cloud.asked))
    assert len(node.audits) <= most * total
    assert all(audit.kept and audit.cloud_answer == CLOUD_ANSWER for audit in node.audits)
    assert {audit.edge_answer for audit in node.audits} == set("0123")


@contextmanager
def stories() -> Iterator[list[str]]:
    """The tasks that are made to answer requests."""
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, story: Any, **options: Any) -> asyncio.Task[Any]:
        if "RawCaller" not in story.__qualname__ and "read" not in story.__qualname__:
            made.append(story.__qualname__)
        return asyncio.Task(story, loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    yield made
    loop.set_task_factory(None)


async def test_one_in_a_known_form_takes_no_task(build: Build) -> None:
    node = await build()
    caller = await RawCaller.connect(node.url)
    await caller.send(question(1, "r", Foothill_Escalation="never"))
    await caller.answer()
    with stories() as made:
        for _ in range(2):
            await caller.send(question(1, "r", Foothill_Escalation="never"))
            assert (await caller.answer()).status == 200
    assert made == []
    await caller.close()


async def test_requests_with_ids_deadlines_and_marks_of_their_own_take_none_either(build: Build) -> None:
    node = await build(hop_key=HOP_KEY)
    caller = await RawCaller.connect(node.url)

    def own(number: int, *, deadline_ms: float = 30_000.0, marked_for: int = -1) -> bytes:
        mark = sign_hop(HOP_KEY, "router", f"r{number if marked_for < 0 else marked_for}", time.time())
        return question(1, f"r{number}", Foothill_Hop=mark, Foothill_Deadline_Ms=f"{deadline_ms:09.3f}")

    await caller.send(own(1))
    assert (await caller.answer()).headers["Foothill-Reason"] == "unsettled"
    with stories() as made:
        for number in (2, 3):
            await caller.send(own(number))
            told = await caller.answer()
            assert (told.status, told.headers["Foothill-Request-Id"]) == (200, f"r{number}")
            assert told.headers["Foothill-Reason"] == "unsettled"
            assert told.headers[ANSWER] == "1"
        await caller.send(own(4, deadline_ms=0.001))
        told = await caller.answer()
        assert (told.status, b"deadline_exceeded" in told.body) == (504, True)
    assert made == []
    # The mark of another request is none: this server holds it then, and its cloud is asked.
    await caller.send(own(5, marked_for=6))
    assert (await caller.answer()).headers["Foothill-Tier"] == "cloud"
    # What cannot be read is told as for the first of its kind.
    await caller.send(own(7).replace(b"30000.000", b"soon.0000"))
    told = await caller.answer()
    assert (told.status, b"Foothill-Deadline-Ms" in told.body) == (400, True)
    await caller.close()


async def test_a_defect_with_one_answer_leaves_nobody_waiting(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = await build()
    engine = graded(node, gated=True)
    bodies = Pages.body

    def body(pages: Pages, form: Form, at: int) -> tuple[bytes, int] | None:
        if at:
            raise ZeroDivisionError("a bug")
        return bodies(pages, form, at)

    monkeypatch.setattr(Pages, "body", body)
    answers = await ask_together(node, engine, *[1] * CALLERS, Foothill_Escalation="never")
    assert {told.status for told in answers} == {200, 500}
    assert sum(node.reasons.values()) == CALLERS + 1
    assert len(caplog.records) == [told.status for told in answers].count(500)
    assert node.telemetry.in_flight("edge").count == 0
    assert node.host.models["lookup"].in_flight == 0


async def test_an_answer_that_would_be_written_too_late_is_a_refusal(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_s = 0.0
    node = await build(clock=lambda: time.monotonic() + late_s)
    engine = graded(node, gated=True)
    bodies = Pages.body

    def body(pages: Pages, form: Form, at: int) -> tuple[bytes, int] | None:
        nonlocal late_s
        late_s = 10.0 if at else late_s
        return bodies(pages, form, at)

    monkeypatch.setattr(Pages, "body", body)
    told = {"Foothill_Escalation": "never", "Foothill_Deadline_Ms": "5000"}
    answers = await ask_together(node, engine, *[1] * CALLERS, **told)
    late = next(told for told in answers if b"before the answer was written" in told.body)
    assert late.status == 504
    assert "infer;dur=" in late.headers["Server-Timing"]
    stats = node.host.models["lookup"].statistics
    in_time = [told for told in answers if told.status == 200]
    assert in_time
    assert stats.inference_count == stats.inference_stats.success.count == 1 + len(in_time)
    assert node.host.models["lookup"].in_flight == 0


class Granting:
    """Admits everybody with the same grant."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant

    async def check(self, *_: object) -> Grant:
        return self.grant

    def check_now(self, *_: object) -> Grant:
        return self.grant


@pytest.mark.parametrize(
    ("limits", "residency", "statuses"),
    [
        (Limits(), (), [200] * 4),
        (Limits(bytes=3 * len(binary(1, **AS_BINARY)[0])), (), [200, 200, 429, 429]),
        (Limits(), ("us",), [403] * 4),
    ],
)
async def test_what_a_caller_was_granted_bounds_what_it_asks(
    build: Build, limits: Limits, residency: tuple[str, ...], statuses: list[int]
) -> None:
    grant = Grant("me", residency=residency, usage=Usage(limits))
    node = await build(admission=cast(Admission, Granting(grant)))
    caller = await RawCaller.connect(node.url)
    # The first is read by the story, so that its form is known.
    await caller.send(question(1, "first", Foothill_Escalation="never"))
    await caller.answer()
    told = []
    for _ in statuses:
        await caller.send(question(1, "r", Foothill_Escalation="never"))
        told.append(await caller.answer())
    assert [each.status for each in told] == statuses
    assert sum(node.reasons.values()) == len(statuses) + 1
    assert node.telemetry.in_flight("edge").count == 0
    await caller.close()


async def test_the_next_bundle_answers_who_asks_in_a_form_that_the_last_one_knew(build: Build, load: Load) -> None:
    node = await build()
    caller = await RawCaller.connect(node.url)
    seen = []
    for version in ("1", "1", "2", "2"):
        if version != node.host.models["lookup"].loaded.manifest.version:
            await node.host.activate("lookup", load(make_lookup, ruled=True, version=version))
        await caller.send(question(1, "r", Foothill_Escalation="never"))
        seen.append((await caller.answer()).headers["Foothill-Model"])
    assert seen == ["lookup-edge@1"] * 2 + ["lookup-edge@2"] * 2
    await node.host.retire("lookup")
    await caller.send(question(1, "r", Foothill_Escalation="never"))
    assert (await caller.answer()).status == 404
    await caller.close()


class Slow:
    """A caller whose second request, in a known form, comes in two parts. Its node's clock may be put forward."""

    def __init__(self, node: Node, caller: RawCaller) -> None:
        self.node = node
        self.caller = caller
        self.served = node.host.models["lookup"]
        self.before_s = 0.0

    @property
    def left(self) -> tuple[int, int, int]:
        """What is not done yet, by whoever counts it."""
        return self.node.telemetry.in_flight("edge").count, self.served.in_flight, len(self.served.batcher._open)

    async def begin(self, request: bytes, *, without: int = 1) -> None:
        """Sends it but for its last bytes, and lets it arrive."""
        await self.caller.send(request[:-without])
        await until(lambda: self.left == (1, 0, 0))


Begin = Callable[..., Any]


@pytest.fixture
async def slow(build: Build) -> AsyncIterator[Begin]:
    slows: list[Slow] = []

    async def begin(**options: Any) -> Slow:
        node = await build(clock=lambda: time.monotonic() + slows[0].before_s if slows else time.monotonic(), **options)
        caller = await RawCaller.connect(node.url)
        await caller.send(question(1, "first", Foothill_Escalation="never"))
        await caller.answer()
        slows.append(Slow(node, caller))
        return slows[0]

    yield begin
    for each in slows:
        await each.caller.close()


KNOWN = question(1, "r", Foothill_Escalation="never", Foothill_Deadline_Ms="500")
PARTS = pytest.mark.parametrize("without", [1, len(binary(1, **AS_BINARY)[0])], ids=["the-end", "the-body"])


@PARTS
async def test_one_whose_body_comes_later_takes_no_task_either(slow: Begin, without: int) -> None:
    one = await slow()
    with stories() as made:
        for _ in range(2):
            await one.begin(KNOWN, without=without)
            await one.caller.send(KNOWN[-without:])
            told = await one.caller.answer()
            assert (told.status, row(told)) == (200, [0.0, 10.0, 0.0, 0.0])
    assert "HotConnection._tell" not in made
    assert one.left == (0, 0, 0)
    assert one.node.reasons == {"asked-never": 3}


@PARTS
async def test_a_body_that_does_not_come_in_time_is_waited_for_no_longer(slow: Begin, without: int) -> None:
    one = await slow()
    await one.begin(KNOWN, without=without)
    told = await one.caller.answer()
    assert (told.status, b"deadline_exceeded" in told.body, b"whole body" in told.body) == (504, True, True)
    assert one.left == (0, 0, 0)
    await one.caller.send(KNOWN[-without:] + question(2, "next"))
    assert (await one.caller.answer()).headers["Foothill-Request-Id"] == "next"
    assert one.node.reasons["deadline_exceeded"] == 1


async def test_the_time_that_a_body_takes_is_of_its_callers_deadline(slow: Begin) -> None:
    one = await slow()
    request = KNOWN.replace(b"Deadline-Ms: 500", b"Deadline-Ms: 60000")
    await one.begin(request)
    one.before_s = 60.0
    await one.caller.send(request[-1:])
    told = await one.caller.answer()
    assert (told.status, b"deadline_exceeded" in told.body) == (504, True)
    assert one.left == (0, 0, 0)


async def test_it_is_of_the_deadline_too_where_the_next_bundle_has_taken_over(slow: Begin, load: Load) -> None:
    one = await slow()
    request = KNOWN.replace(b"Deadline-Ms: 500", b"Deadline-Ms: 60000")
    for before_s, status in ((0.0, 200), (60.0, 504)):
        version = str(2 + bool(before_s))
        one.before_s = 0.0
        await one.begin(request)
        await one.node.host.activate("lookup", load(make_lookup, ruled=True, version=version))
        one.served = one.node.host.models["lookup"]
        one.before_s = before_s
        await one.caller.send(request[-1:])
        told = await one.caller.answer()
        assert told.status == status, told.body
        assert one.left == (0, 0, 0)


async def test_who_would_not_be_let_in_is_told_so_before_the_body_comes(slow: Begin) -> None:
    one = await slow()
    for size in one.served.batcher.schedule.times.sizes:
        one.served.batcher.schedule.times.measured(size, 10.0)
    await one.caller.send(KNOWN[:-4])
    told = await one.caller.answer()
    assert (told.status, b"deadline_exceeded" in told.body) == (504, True)
    assert told.headers["Foothill-Request-Id"] == "r"
    assert one.left == (0, 0, 0)
    assert one.served.statistics.inference_stats.fail.count == 1
    for size in one.served.batcher.schedule.times.sizes:
        one.served.batcher.schedule.times.measured(size, 0.001)
    await one.caller.send(KNOWN[-4:] + KNOWN)
    assert (await one.caller.answer()).status == 200


async def test_who_goes_away_before_the_body_has_come_is_counted_once(slow: Begin) -> None:
    one = await slow()
    await one.begin(KNOWN)
    one.caller.vanish()
    await until(lambda: one.left == (0, 0, 0))
    assert one.node.reasons == {"asked-never": 1, "client-gone": 1}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"/v2/models/lookup/infer", b"/v2/models/nothing/infer"), 404),
        ((b"/v2/models/lookup/infer", b"/v2/models/lookup/versions/9/infer"), 404),
        ((b"Content-Length: ", b"Content-Length: 99999999"), 413),
        ((b"Deadline-Ms: 500", b"Deadline-Ms: soon"), 400),
    ],
)
async def test_what_needs_no_body_to_be_refused_is_not_waited_for(
    slow: Begin, change: tuple[bytes, bytes], status: int
) -> None:
    one = await slow()
    request = KNOWN.replace(*change, 1)
    assert request != KNOWN
    await one.caller.send(request[:-1])
    assert (await one.caller.answer()).status == status
    assert one.left == (0, 0, 0)
