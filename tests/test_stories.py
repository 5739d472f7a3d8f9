"""The request and the rollout story, over real processes, sockets, broker, database and models."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import paho.mqtt.client as mqtt
import pytest
import tritonclient.http as triton
from paho.mqtt.enums import CallbackAPIVersion

from contracts import headers, topics
from contracts.messages import Audit, Signed, decode
from contracts.predictions import Classification
from contracts.timing import parse_server_timing
from fleet.api import RolloutRequest, RolloutView
from foothill.client import Client
from foothill.demo import places
from foothill.demo.samples import digit_samples
from foothill.demo.traffic import Crowd, Front, Outcome, Sample, make_calls
from foothill.processes import Processes
from foothill.site import EDGES, Machine
from model_compiler.digits.recipe import DigitsBundles
from runtime import regions

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

CLIENTS = places.LEAST_COUNTRIES


@pytest.fixture(scope="module")
def machine(bundles: DigitsBundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Every part in a process of its own, with digits-edge@1 on all three nodes."""
    state = tmp_path_factory.mktemp("machine")
    with Processes(state / "logs") as processes:
        one = Machine(state, processes, geoip_database=str(places.database_path()))
        one.start_core()
        for packed in (bundles.cloud, bundles.edge, bundles.bad):
            one.fleet().publish(packed.directory)
        one.start_serving()
        for name in EDGES:
            one.join(name)
        view = one.roll_out(RolloutRequest(bundle="digits-edge@1", nodes=tuple(EDGES)), timeout_s=90, each=_unseen)
        assert view.state == "completed", view.reason
        one.wait_served()
        yield one


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    return digit_samples(400, seed=7)


class Traffic:
    """Clients from all over the world that do not stop until `during` ends."""

    def __init__(self, machine: Machine, bundles: DigitsBundles, samples: tuple[Sample, ...]) -> None:
        self._front = Front(machine.urls.router, machine.urls.cloud, bundles.cloud.manifest.labels, deadline_ms=8_000)
        self._places = places.sample(CLIENTS, 3, regions.load(), places.database_path())
        self._samples = samples

    def send(self, count: int) -> list[Outcome]:
        async def run() -> list[Outcome]:
            async with Crowd(self._front, self._places) as crowd:
                return await crowd.run(make_calls(self._samples, CLIENTS, count, 1), "hybrid", concurrency=8)

        return asyncio.run(run())

    def during(self, disturbance: Callable[[], None], *, settle: int = 200) -> list[Outcome]:
        """Outcomes of requests made before, while and after `disturbance` runs; at least `settle` on either side.

        The traffic runs in a thread, since processes are started and ended by the main one.
        """
        outcomes: list[Outcome] = []
        ended = threading.Event()
        endless = itertools.chain.from_iterable(
            make_calls(self._samples, CLIENTS, len(self._samples), seed) for seed in itertools.count()
        )

        async def run() -> None:
            async with Crowd(self._front, self._places) as crowd:
                calls = itertools.takewhile(lambda _: not ended.is_set(), endless)
                await crowd.run(calls, "hybrid", concurrency=8, on_outcome=outcomes.append)

        load = threading.Thread(target=asyncio.run, args=(run(),))
        load.start()
        try:
            _until(lambda: len(outcomes) >= settle)
            disturbance()
            last = len(outcomes) + settle
            _until(lambda: len(outcomes) >= last)
        finally:
            ended.set()
            load.join()
        return outcomes


@pytest.fixture
def traffic(machine: Machine, bundles: DigitsBundles, samples: tuple[Sample, ...]) -> Traffic:
    return Traffic(machine, bundles, samples)


def test_a_leased_request_is_answered_by_the_nearest_node_and_says_everything(
    machine: Machine, samples: tuple[Sample, ...]
) -> None:
    in_tokyo = {"X-Forwarded-For": "126.0.0.1"}
    with Client(machine.urls.router, headers=in_tokyo) as client:
        answer = client.predict("digits", samples[0].jpeg, escalation="never")
    assert isinstance(answer.prediction, Classification)
    assert (answer.tier, answer.node, answer.reason) == ("edge", "tokyo", "asked-never")
    assert answer.bundle == "digits-edge@1"
    assert answer.confidence is not None
    assert {"network", "queue", "decode", "infer", "lease"} <= set(answer.timings_ms)
    assert sum(answer.timings_ms.values()) == pytest.approx(answer.total_ms, rel=0.2, abs=2.0)


@pytest.mark.parametrize("way", ["router", "edge", "cloud"])
def test_the_same_picture_is_answered_the_same_way_by_all_three(
    machine: Machine, samples: tuple[Sample, ...], way: str
) -> None:
    url = _url_of(machine, way)
    answer = httpx.post(
        f"{url}/v1/predict/digits",
        content=samples[0].png,
        headers={"Content-Type": "image/png", headers.ESCALATION: "never"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "digits"
    for name in (headers.REQUEST_ID, headers.TIER, headers.NODE, headers.REASON, headers.MODEL):
        assert answer.headers[name]
    assert {"queue", "decode", "infer", "total"} <= set(parse_server_timing(answer.headers[headers.SERVER_TIMING]))
    for name in headers.HOP_ONLY:
        assert name not in answer.headers


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("way", ["router", "edge", "cloud"])
def test_tritonclient_works_unchanged(machine: Machine, samples: tuple[Sample, ...], way: str, binary: bool) -> None:
    client = triton.InferenceServerClient(_url_of(machine, way).removeprefix("http://"))
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.get_model_metadata("digits")["inputs"][0]["name"] == "image"
        tensor = np.frombuffer(samples[0].tensor, "<f4").reshape(samples[0].shape)
        image = triton.InferInput("image", list(tensor.shape), "FP32")
        image.set_data_from_numpy(tensor, binary_data=binary)
        wanted = triton.InferRequestedOutput("logits", binary_data=binary)
        result = client.infer("digits", [image], outputs=[wanted])
        assert result.as_numpy("logits").shape == (1, 10)
    finally:
        client.close()


@pytest.mark.parametrize("way", ["router", "edge", "cloud"])
@pytest.mark.parametrize(
    ("path", "body", "media_type", "status", "code"),
    [
        ("/v1/predict/digits", b"\xff\xd8\xff\xe0 this is no picture", "image/jpeg", 400, "bad_image"),
        ("/v1/predict/digits", b"x", "text/plain", 415, "unsupported_media_type"),
        ("/v1/predict/nobody", b"\x89PNG\r\n\x1a\n", "image/png", 404, "model_not_found"),
        ("/v2/models/digits/infer", b"{}", "application/json", 400, "bad_request"),
        (
            "/v2/models/digits/infer",
            b'{"inputs":[{"name":"image","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
            "application/json",
            400,
            "bad_tensor",
        ),
        ("/v1/predict/digits", b"x" * ((16 << 20) + 1), "image/jpeg", 413, "body_too_large"),
    ],
    ids=["image", "media type", "model", "no inputs", "shape", "size"],
)
def test_bad_input_gets_the_error_of_the_contract(
    machine: Machine, way: str, path: str, body: bytes, media_type: str, status: int, code: str
) -> None:
    answer = httpx.post(_url_of(machine, way) + path, content=body, headers={"Content-Type": media_type}, timeout=20)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (status, code)
    assert told["message"]
    assert told["source"]
    assert told["request_id"] == answer.headers[headers.REQUEST_ID]
    assert told["retryable"] is False


def test_doubtful_requests_are_escalated_once_and_audited_pairs_are_published(
    machine: Machine, traffic: Traffic
) -> None:
    with _Audits(machine.urls.broker) as audits:
        before = _asked_of_the_cloud(machine)
        outcomes = traffic.send(600)
        escalated = sum(outcome.escalated for outcome in outcomes)
        _until(lambda: _asked_of_the_cloud(machine) - before == escalated + audits.kept)
    assert all(outcome.ok for outcome in outcomes)
    assert {outcome.tier for outcome in outcomes} == {"edge", "cloud"}
    assert {outcome.node for outcome in outcomes if outcome.tier == "edge"} == set(EDGES)
    assert {outcome.leased for outcome in outcomes} == {True, False}
    assert 0.05 < escalated / len(outcomes) < 0.7
    assert 5 <= len(audits.heard) <= 80
    assert {audit.kept for audit in audits.heard} == {True, False}


def test_an_edge_node_killed_mid_run_costs_no_request(machine: Machine, traffic: Traffic) -> None:
    outcomes = traffic.during(lambda: machine.kill("frankfurt"))
    machine.start("frankfurt")
    machine.wait_served()
    assert _errors(outcomes) == []


def test_without_the_cloud_doubtful_answers_come_from_the_edge_marked_degraded(
    machine: Machine, traffic: Traffic
) -> None:
    outcomes = traffic.during(lambda: machine.stop("cloud"))
    machine.start("cloud")
    machine.wait_served()
    assert _errors(outcomes) == []
    degraded = [outcome for outcome in outcomes if outcome.degraded]
    assert degraded
    assert {outcome.tier for outcome in degraded} == {"edge"}
    assert {outcome.reason for outcome in degraded} <= {"cloud-failed", "no-cloud", "no-time"}


def test_a_restarted_broker_costs_no_request_and_the_fleet_finds_together_again(
    machine: Machine, traffic: Traffic
) -> None:
    def restart() -> None:
        machine.kill("broker")
        machine.start("broker")

    outcomes = traffic.during(restart)
    assert _errors(outcomes) == []
    _until(lambda: {node.state for node in machine.fleet().nodes()} == {"online"})


def test_a_bad_version_is_stopped_at_the_canary_and_taken_back_while_requests_go_on(
    machine: Machine, traffic: Traffic
) -> None:
    views: list[RolloutView] = []
    request = RolloutRequest(bundle="digits-edge@2", nodes=tuple(EDGES))
    outcomes = traffic.during(lambda: views.append(machine.roll_out(request, timeout_s=150, each=_unseen)))
    view = views[0]
    assert (view.state, view.stopped_stage) == ("rolled-back", 1), view.reason
    assert view.exposed == view.reverted == ("frankfurt",)
    assert view.gate is not None
    assert view.gate.decision == "reject"
    assert _errors(outcomes) == []
    assert {outcome.bundle for outcome in outcomes} == {"digits-edge@1", "digits-edge@2", "digits-cloud@1"}
    _until(lambda: {node.reported["digits"].bundle for node in machine.fleet().nodes()} == {"digits-edge@1"})


class _Audits:
    """A plain MQTT subscriber beside the system."""

    def __init__(self, url: str) -> None:
        self.heard: list[Audit] = []
        self._port = int(url.rpartition(":")[2])
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            decode(decode(bytes(message.payload), Signed).payload, Audit)
        )
        self._client.on_connect = lambda client, *_: client.subscribe(topics.EVERY_AUDIT, qos=1)

    @property
    def kept(self) -> int:
        return sum(audit.kept for audit in self.heard)

    def __enter__(self) -> _Audits:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        _until(self._client.is_connected)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _asked_of_the_cloud(machine: Machine) -> int:
    """Successful inferences of the cloud tier, from its statistics."""
    stats = httpx.get(f"{machine.urls.cloud}/v2/models/digits/stats").json()
    return int(stats["model_stats"][0]["inference_stats"]["success"]["count"])


def _url_of(machine: Machine, way: str) -> str:
    urls = machine.urls
    return {"router": urls.router, "edge": urls.edges["tokyo"], "cloud": urls.cloud}[way]


def _errors(outcomes: list[Outcome]) -> list[str]:
    return [f"{outcome.status} {outcome.error}" for outcome in outcomes if not outcome.ok]


def _until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Polls what only shows from outside."""
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.05)


def _unseen(_: RolloutView) -> None:
    """For rollouts nobody watches."""
