"""A pipeline in the node asks with a real model, and a real cloud behind a real socket that may be away."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.messages import Audit, Certificate, Late
from edge_node.late import LatePart
from edge_node.pipelines import Pipelines, Seen
from edge_node.spool_file import LateAnswer, SpoolConfig
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Answer, Request, Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.pictures.picture import Size
from tests.edge_node.workbench import until
from tests.runtime.serving.bundle_factory import TARGET, make_classifier, make_detector
from tests.runtime.serving.test_app import picture

HOP_KEY = b"k" * 32
SURE_OF_SEVEN = [60.0 if label == 7 else 0.0 for label in range(10)]
TERMS = Terms(deadline_ms=5000.0)


class Uplink(Upstreams):
    """The node's own way out, and what took it."""

    def __init__(self, sent: list[Request]) -> None:
        super().__init__()
        self._sent = sent

    async def send(self, base_url: str, request: Request, **options: Any) -> Answer:
        self._sent.append(request)
        return await super().send(base_url, request, **options)


class Site:
    """One node's parts in this process, and a cloud that can be cut off. A second Site there is its next life."""

    def __init__(
        self, directory: Path, *, bias: list[float] | None = None, audit_rate: float = 0.0, **spool: Any
    ) -> None:
        self.directory = directory
        self.bias = bias
        self.audit_rate = audit_rate
        self.spool = SpoolConfig(per_s=100.0, **spool)
        self.audits: list[Audit] = []
        self.published: list[Late] = []
        self.fleet_listens = True
        self.heard: list[LateAnswer] = []
        self.sent: list[Request] = []
        self.certificates = Certificates()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.cloud_port = int(free.getsockname()[1])
        self.cloud: web.AppRunner | None = None

    async def open(self) -> None:
        self.host, self.telemetry = ModelHost(drain_s=1.0), Telemetry()
        bundle = self.directory / "bundle"
        digest = make_classifier(bundle, bias=self.bias, threshold=0.5)
        loaded = LoadedModel.open(bundle, digest, target=TARGET, threads=1)
        self.stratum = loaded.stratum
        await self.host.activate("digits", loaded)
        self.upstreams = Uplink(self.sent)
        self.holder = Holder(
            node="fra",
            cloud_urls=(f"http://127.0.0.1:{self.cloud_port}",),
            upstreams=self.upstreams,
            certificates=self.certificates,
            hop_key=HOP_KEY,
            hop_name="node",
            publish_audit=self.audits.append,
            telemetry=self.telemetry,
            rng=random.Random(1),
            audit_rate=self.audit_rate,
            cloud_region="eu-central",
        )
        settings = ServingSettings(node="fra", tier="edge", region="eu-central", hop_key=HOP_KEY)
        self.late = LatePart(
            self.directory, self.spool, node="fra", ask=self.holder.ask_late, publish=self._publish,
            registry=CollectorRegistry(), rng=random.Random(1),
        )  # fmt: skip
        self.pipelines = Pipelines(self.host, self.holder, settings, self.telemetry, late=self.late)
        self.pipelines.hearers.append(self.heard.append)
        app = create_app(self.host, settings, holder=self.holder, telemetry=self.telemetry, spool=self.late.spooling)
        self.late.live_in(app)
        self.node, self.url = await start_app(app, "127.0.0.1", 0, name="fra", drain_s=0.1)

    def trust_from(self, threshold: float, *, sequence: int = 1) -> None:
        """From this confidence on the edge's answers are kept."""
        self.certificates.put(Certificate(self.stratum, "digits", threshold, 0.05, 0.05, 100, "live", sequence, 0.0))

    async def start_cloud(self) -> None:
        self.cloud_host = ModelHost(drain_s=1.0)
        bundle = self.directory / "cloud-bundle"
        digest = make_classifier(bundle, name="digits-cloud", tier="cloud", bias=SURE_OF_SEVEN)
        await self.cloud_host.activate("digits", LoadedModel.open(bundle, digest, target=TARGET, threads=1))
        app = create_app(
            self.cloud_host,
            ServingSettings(node="cloud", tier="cloud", region="eu-central", hop_key=HOP_KEY),
            holder=None,
            telemetry=Telemetry(),
        )
        self.cloud, _ = await start_app(app, "127.0.0.1", self.cloud_port, name="cloud", drain_s=0.1)

    async def close(self) -> None:
        await self.node.cleanup()
        await self.holder.close()
        await self.upstreams.close()
        await self.host.close()
        await self.stop_cloud()

    async def stop_cloud(self) -> None:
        if self.cloud is not None:
            await self.cloud.cleanup()
            await self.cloud_host.close()
            self.cloud = None

    async def look(self, terms: Terms = TERMS, **options: Any) -> Seen:
        return await self.pipelines.look("digits", frame(), terms, **options)

    async def ask(self, terms: Terms = TERMS) -> Any:
        return await self.pipelines.settle(await self.look(terms), picture(), "image/png")

    def _publish(self, late: Late) -> bool:
        if self.fleet_listens:
            self.published.append(late)
        return self.fleet_listens


def frame(rows: int = 1) -> dict[str, Any]:
    return {"image": np.zeros((rows, 1, 8, 8), np.float32)}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Its cloud is away; it doubts all that it sees."""
    made = Site(tmp_path)
    await made.open()
    made.trust_from(2.0)
    yield made
    await made.close()


async def test_what_the_edge_is_sure_of_stands_and_nothing_leaves_the_node(site: Site) -> None:
    await site.start_cloud()
    site.trust_from(0.0, sequence=2)
    seen = await site.look()
    assert seen.final
    assert seen.outputs["logits"].shape == (1, 10)
    assert re.fullmatch("[0-9a-f]{32}", seen.request_id)
    outcome = await site.pipelines.settle(seen, picture(), "image/png")
    assert (outcome.settled.tier, outcome.settled.certified, outcome.late) == ("edge", True, False)
    told = json.loads(outcome.settled.answer.body)
    assert (told["tier"], told["node"], told["request_id"]) == ("edge", "fra", seen.request_id)
    assert told["confidence"] == seen.reading.confidence
    assert not site.sent


async def test_what_it_doubts_the_cloud_answers_under_the_same_id_with_the_same_headers(site: Site) -> None:
    await site.start_cloud()
    seen = await site.look(Terms(deadline_ms=5000.0, request_id="camera-7", residency=("eu-central",)))
    assert not seen.final
    outcome = await site.pipelines.settle(seen, picture(), "image/png")
    settled = outcome.settled
    assert (settled.tier, settled.degraded, outcome.late) == ("cloud", False, False)
    assert json.loads(settled.answer.body)["label"] == "7"
    (sent,) = site.sent
    assert sent.body == picture()
    assert sent.headers[headers.REQUEST_ID] == "camera-7"
    assert sent.headers[headers.RESIDENCY] == "eu-central"
    assert sent.headers[headers.HOP]
    assert settled.phases["escalate"] > 0


async def test_with_the_cloud_away_the_edge_answers_and_the_late_answer_comes_under_its_id(site: Site) -> None:
    site.fleet_listens = False
    ids = ["camera-7", "camera-8", "camera-9"]
    for request_id in ids:
        outcome = await site.ask(Terms(deadline_ms=5000.0, request_id=request_id))
        assert (outcome.settled.tier, outcome.settled.degraded, outcome.late) == ("edge", True, True)
        told = json.loads(outcome.settled.answer.body)
        assert (told["tier"], told["reason"]) == ("edge", outcome.settled.reason)
    assert not site.heard
    await site.start_cloud()
    await until(lambda: len(site.heard) == 3)
    assert [late.request_id for late in site.heard] == ids
    late = site.heard[0]
    assert (late.model, json.loads(late.body)["label"], json.loads(late.body)["reason"]) == ("digits", "7", "late")
    site.fleet_listens = True
    await until(lambda: len(site.published) == 3)
    assert [told.request_id for told in site.published] == ids
    assert len(site.heard) == 3, "each once, though the fleet was away"


async def test_a_late_answer_is_heard_by_the_next_life_of_the_node(tmp_path: Path) -> None:
    first = Site(tmp_path)
    first.fleet_listens = False
    await first.open()
    first.trust_from(2.0)
    for request_id in ("camera-6", "camera-7"):
        assert (await first.ask(Terms(deadline_ms=5000.0, request_id=request_id))).late
        if request_id == "camera-6":
            await first.start_cloud()
            await until(lambda: bool(first.heard))
            await first.stop_cloud()
    await first.close()
    second = Site(tmp_path)
    second.cloud_port = first.cloud_port
    await second.open()
    await second.start_cloud()
    await until(lambda: len(second.heard) == 2)
    assert [late.request_id for late in second.heard] == ["camera-6", "camera-7"], (
        "the fleet had not heard of the first"
    )
    await second.close()


async def test_a_hearer_that_fails_keeps_nobody_else_from_hearing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def breaks(late: LateAnswer) -> None:
        raise ValueError("no such event")

    site.pipelines.hearers.insert(0, breaks)
    assert (await site.ask()).late
    await site.start_cloud()
    await until(lambda: bool(site.heard) and bool(site.published))
    assert "a pipeline did not take the late answer" in caplog.text


async def test_callers_from_outside_do_not_see_what_pipelines_wait_for(site: Site) -> None:
    assert (await site.ask(Terms(deadline_ms=5000.0, request_id="camera-7"))).late
    answer = await site.upstreams.send(
        site.url,
        Request("GET", "/v1/results/camera-7", {}),
        deadline=Deadline.after(5000, now_s=time.monotonic()),
        clock=time.monotonic,
    )
    assert answer.status == 404


@pytest.mark.parametrize(
    ("terms", "degraded"),
    [
        (Terms(deadline_ms=5000.0, residency=("us-east",)), True),
        (Terms(deadline_ms=5000.0, escalation="never"), False),
    ],
    ids=["outside its residency", "never"],
)
async def test_nothing_leaves_the_node_or_waits_where_terms_forbid_it(site: Site, terms: Terms, degraded: bool) -> None:
    await site.start_cloud()
    outcome = await site.ask(terms)
    assert (outcome.settled.tier, outcome.settled.degraded, outcome.late) == ("edge", degraded, False)
    assert not site.sent


async def test_a_cloud_that_says_nothing_costs_no_more_than_the_deadline(site: Site) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", site.cloud_port))
        silent.listen()
        started_s = time.monotonic()
        outcome = await site.ask(Terms(deadline_ms=300.0))
        assert time.monotonic() - started_s < 1.0
    assert (outcome.settled.tier, outcome.settled.reason, outcome.late) == ("edge", "cloud-failed", True)


async def test_a_drawn_audit_asks_the_cloud_behind_an_answer_that_stands(tmp_path: Path) -> None:
    site = Site(tmp_path, audit_rate=1.0)
    await site.open()
    site.trust_from(0.0)
    await site.start_cloud()
    seen = await site.look()
    assert (seen.final, seen.audited) == (False, True)
    outcome = await site.pipelines.settle(seen, picture(), "image/png")
    assert outcome.settled.tier == "edge"
    await until(lambda: bool(site.audits))
    (audit,) = site.audits
    assert (audit.kept, audit.cloud_answer, audit.edge_answer) == (True, "7", seen.reading.answer)
    await site.close()


@pytest.mark.parametrize(
    ("model", "inputs", "code", "says"),
    [
        ("faces", frame(), "model_not_found", "'faces' is not served here"),
        ("digits", {"x": frame()["image"]}, "bad_tensor", "expected 'image', got 'x'"),
        ("digits", {"image": np.zeros((1, 1, 8, 9), np.float32)}, "bad_tensor", "got shape"),
        ("digits", {"image": np.zeros((1, 1, 8, 8))}, "bad_tensor", "an array of float32, got float64"),
        ("digits", frame(9), "bad_tensor", "at most 8 rows"),
        ("digits", {"image": np.full((1, 1, 8, 8), np.nan, np.float32)}, "bad_tensor", "is NaN or infinite"),
    ],
)
async def test_what_the_model_does_not_take_is_refused(
    site: Site, model: str, inputs: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(FoothillError, match=says) as refused:
        await site.pipelines.look(model, inputs, TERMS)
    assert refused.value.code == code


async def test_several_rows_have_an_answer_and_no_body(site: Site) -> None:
    await site.start_cloud()
    seen = await site.pipelines.look("digits", frame(3), Terms(deadline_ms=5000.0, escalation="never"))
    outcome = await site.pipelines.settle(seen, picture(), "image/png")
    assert (len(seen.outputs["logits"]), outcome.settled.answer.body) == (3, b"")


async def test_looks_and_settlements_are_counted(site: Site) -> None:
    await site.start_cloud()
    await site.ask()
    with pytest.raises(FoothillError):
        await site.pipelines.look("digits", frame(9), TERMS)
    told = bytes(site.telemetry.metrics_response().body).decode()  # type: ignore[arg-type]
    counted = [line for line in told.splitlines() if line.startswith("foothill_requests_total") and "digits" in line]
    named = {(field("route", line), field("tier", line), field("status", line)) for line in counted}
    assert named == {("look", "edge", "200"), ("look", "edge", "400"), ("settle", "cloud", "200")}
    assert 'foothill_in_flight{part="edge"} 0.0' in told or "foothill_in_flight" not in told
    (statistics,) = [site.host.get("digits").statistics]
    assert (statistics.inference_count, statistics.inference_stats.success.count) == (1, 1)


def field(name: str, line: str) -> str:
    found = re.search(f'{name}="([^"]*)"', line)
    assert found, line
    return found.group(1)


@pytest.mark.parametrize("size", [Size(640, 480), None])
async def test_a_detectors_boxes_come_in_pixels_of_the_picture_that_it_was_asked_with(
    site: Site, tmp_path: Path, size: Size | None
) -> None:
    digest = make_detector(tmp_path / "things")
    await site.host.activate("things", LoadedModel.open(tmp_path / "things", digest, target=TARGET, threads=1))
    image = np.zeros((1, 3, 240, 320), np.float32)
    image[:, :, 80:120, 40:64] = 1.0
    seen = await site.pipelines.look("things", {"image": image}, TERMS)
    outcome = await site.pipelines.settle(seen, picture(), "image/png", picture=size)
    (thing,) = json.loads(outcome.settled.answer.body)["objects"]
    scale = 2 if size is not None else 1
    assert np.array(thing["box"]) / scale == pytest.approx([40, 80, 64, 120], abs=1.0)
