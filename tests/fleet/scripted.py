"""A fleet manager in this process, bundles to give it, and nodes that speak the protocol by script."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from contracts import manifest as manifests
from contracts.boards import Fingerprint
from contracts.enrolment import EnrolAnswer
from contracts.manifest import (
    Artifact,
    ConfidenceRule,
    File,
    Golden,
    Manifest,
    Measured,
    Measurements,
    Postprocess,
    TensorSpec,
)
from contracts.messages import (
    Audit,
    Desired,
    ModelPhase,
    ModelReport,
    Quality,
    Reported,
    Signed,
    Status,
    decode,
    encode,
)
from contracts.quality import Counts
from contracts.strata import stratum_of
from contracts.topics import audit_topic, node_topic
from fleet.__main__ import opened
from fleet.app import Parts, create_app
from fleet.assembly import DATABASE
from fleet.audit_reader import holding_of
from fleet.auditing.verification import Verdict, verify
from fleet.config import FleetConfig
from fleet.state import State
from runtime.links.http.serve import start_app
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures

FINGERPRINT = Fingerprint("cpu-x86", "x86_64", "linux", 2, 8 << 30, "CPUExecutionProvider", "onnxruntime 1.23")
STRATUM = "s" * 32
CLOUD_DIGEST = "sha256:" + "c" * 64


def write_bundle(directory: Path, version: str, *, name: str = "digits-edge", tier: str = "edge") -> str:
    """A packed bundle whose files are small stand-ins; returns its digest."""
    contents = {
        "cpu.onnx": f"weights of {name} {version}".encode() * 50,
        "golden/inputs/image.npy": b"the same golden input",
        "golden/cpu.onnx/logits.npy": f"logits {version}".encode(),
    }
    for path, data in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    files = {path: File("sha256:" + hashlib.sha256(data).hexdigest(), len(data)) for path, data in contents.items()}
    rule = ConfidenceRule(
        temperature=1.0,
        threshold=0.8,
        epsilon=0.02,
        delta=0.05,
        n=1000,
        feasible=True,
        stratum=stratum_of(files["cpu.onnx"].sha256, CLOUD_DIGEST, "classification"),
        cloud_digest=CLOUD_DIGEST,
    )
    manifest = Manifest(
        name=name,
        version=version,
        model="digits",
        task="classification",
        tier="edge" if tier == "edge" else "cloud",
        files=files,
        artifacts=(Artifact("cpu.onnx", "int8", "onnxruntime", ("cpu-x86",), rule if tier == "edge" else None),),
        inputs=(TensorSpec("image", "FP32", (-1, 1, 8, 8)),),
        outputs=(TensorSpec("logits", "FP32", (-1, 10)),),
        postprocess=Postprocess("logits", "logits"),
        golden=Golden(
            {"image": "golden/inputs/image.npy"}, {"cpu.onnx": {"logits": "golden/cpu.onnx/logits.npy"}}, 1e-3, 1e-3
        ),
    )
    (directory / manifests.FILE).write_bytes(manifests.encode(manifest))
    measured = {"cpu.onnx": Measured(0.98, 1000, 0.3, len(contents["cpu.onnx"]), agreement=0.97)}
    measurements = Measurements(manifest.reference, measured, "test split", "2 cores")
    (directory / manifests.MEASUREMENTS_FILE).write_bytes(msgspec.json.encode(measurements))
    return manifests.digest(manifest)


def audit_of(node: str, digest: str, request_id: str, *, agree: bool) -> Audit:
    return Audit(STRATUM, "digits", digest, node, request_id, 0.9, True, "3", "3" if agree else "5", 0.0)


async def until(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "it") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} took more than {timeout_s} s"
        await asyncio.sleep(0.01)


class Operator:
    """Speaks to the HTTP API with the admin token."""

    def __init__(self, url: str, token: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        async with self.session.request(method, self.url + path, data=data, headers=self.headers) as answer:
            text = await answer.read()
            assert answer.status == expect, text
            return msgspec.json.decode(text)

    async def publish(self, directory: Path, *, measured: bool = True) -> dict[str, Any]:
        data = (directory / manifests.FILE).read_bytes()
        manifest = manifests.decode(data)
        for name, file in manifest.files.items():
            await self.call("PUT", f"/v1/blobs/{file.sha256}", (directory / name).read_bytes(), expect=201)
        detail: dict[str, Any] = await self.call("POST", "/v1/models", data, expect=201)
        if measured:
            path = f"/v1/models/{manifest.name}/{manifest.version}/measurements"
            await self.call("POST", path, (directory / manifests.MEASUREMENTS_FILE).read_bytes())
        return detail

    async def start(self, bundle: str, *, expect: int = 201, **more: Any) -> dict[str, Any]:
        rollout: dict[str, Any] = await self.call("POST", "/v1/rollouts", {"bundle": bundle, **more}, expect=expect)
        return rollout

    async def rollout(self, rollout_id: str) -> dict[str, Any]:
        rollout: dict[str, Any] = await self.call("GET", f"/v1/rollouts/{rollout_id}")
        return rollout

    async def wait(self, rollout_id: str, *states: str, timeout_s: float = 25.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            rollout = await self.rollout(rollout_id)
            if rollout["state"] in states:
                return rollout
            assert time.monotonic() < deadline, f"still {rollout}"
            await asyncio.sleep(0.05)

    async def enrol(self, name: str, *, broker_url: str = "") -> ScriptedNode:
        token = {"node": name, "region": "eu-central", "lat": 50.1, "lon": 8.7}
        answer = await self.call("POST", "/v1/tokens", token, expect=201)
        private = signatures.generate()
        request = {
            "token": answer["token"],
            "public_key": signatures.public_key(private),
            "url": f"http://{name}:8100",
            "reach": "public",
            "fingerprint": msgspec.to_builtins(FINGERPRINT),
        }
        raw = await self.call("POST", "/v1/enrol", request)
        enrolment = msgspec.json.decode(msgspec.json.encode(raw), type=EnrolAnswer)
        return ScriptedNode(enrolment, broker_url or enrolment.broker_url, private)


class ScriptedNode:
    """An edge node without models: takes desired documents, goes through the phases, and reports.

    `fails`: digests whose golden test fails here; `silent`: it never reports again.
    """

    def __init__(self, enrolment: EnrolAnswer, broker_url: str, private: bytes) -> None:
        self.enrolment = enrolment
        self.broker_url = broker_url
        self.private = private
        self.name = enrolment.node
        self.fails: set[str] = set()
        self.silent = False
        self.serving: dict[str, str] = {}
        self.sequence = 0
        self.documents: list[Desired] = []
        self.attached: dict[str, bytes] = {}
        self.epoch = int(time.time() * 1000)
        offline = encode(Status(self.name, self.epoch, "offline"))
        self.port = MqttPort(broker_url, self.name, will=(node_topic(self.name, "status"), offline, True))
        self.port.subscribe(node_topic(self.name, "desired"), self._on_desired)
        self.port.on_connect(self._assert)
        self._reports: dict[str, ModelReport] = {}

    async def start(self) -> ScriptedNode:
        await self.port.start()
        await self.port.wait_connected(20)
        return self

    async def stop(self) -> None:
        await self.port.stop()

    async def lose_power(self) -> None:
        """Its will is what is left of it."""
        await self.port.kill()

    def again(self) -> ScriptedNode:
        """Its next life, to be started."""
        return ScriptedNode(self.enrolment, self.broker_url, self.private)

    def audit(self, digest: str, request_id: str, *, agree: bool) -> None:
        self.publish_audit(signatures.sign(audit_of(self.name, digest, request_id, agree=agree), self.private))

    def tell_counts(self, digest: str, counts: Counts) -> None:
        """Totals of a version."""
        told = signatures.sign(Quality(self.name, self.epoch, {digest: counts}), self.private)
        self.port.publish(node_topic(self.name, "quality"), encode(told), retain=True)

    def publish_audit(self, signed: Signed, stratum: str = STRATUM) -> None:
        self.port.publish(audit_topic(stratum), encode(signed))

    def _assert(self) -> None:
        self.port.publish(node_topic(self.name, "status"), encode(Status(self.name, self.epoch, "online")), retain=True)
        self.report()

    def _on_desired(self, _topic: str, payload: bytes) -> None:
        signed = decode(payload, Signed)
        desired = decode(signed.payload, Desired)
        if desired.sequence <= self.sequence:
            return
        self.sequence = desired.sequence
        self.documents.append(desired)
        self.attached = signed.attachments
        for model in set(self.serving) - set(desired.models):
            del self.serving[model]
        self._reports = {model: self._take(model, digest) for model, digest in desired.models.items()}
        self.report()

    def _take(self, model: str, digest: str) -> ModelReport:
        phases: tuple[ModelPhase, ...] = ("fetching", "verifying", "testing")
        before = self.serving.get(model, "")
        for phase in phases:
            self._reports = {model: ModelReport(digest, phase, serving=before)}
            self.report()
        if digest in self.fails:
            return ModelReport(digest, "failed", serving=before, error="golden: logits is off by 3.1 at row 0")
        self.serving[model] = digest
        return ModelReport(digest, "active", serving=digest, previous=before)

    def report(self) -> None:
        if not self.silent and self.sequence:
            reported = Reported(self.name, self.epoch, self.sequence, dict(self._reports), FINGERPRINT, time.time())
            self.port.publish(node_topic(self.name, "reported"), encode(reported), retain=True)


class Fleet:
    """One fleet manager in this process, which can be stopped and started again over the same state."""

    def __init__(self, config: FleetConfig, session: aiohttp.ClientSession) -> None:
        self.config = config
        self.directory = Path(config.state_dir)
        self.session = session
        self.url = ""
        self.is_proven = True
        self.operator: Operator
        self.parts: Parts
        self._running = AsyncExitStack()

    async def start(self) -> Fleet:
        port = urlsplit(self.url).port or 0
        self.parts, self.url = await self._running.enter_async_context(_served(self.config, port))
        self.operator = Operator(self.url, self.parts.admin_token, self.session)
        return self

    async def stop(self) -> None:
        """Whatever has become of it follows from its audit log, unless a test has altered that."""
        await self._running.aclose()
        verdict = await asyncio.to_thread(proof_of, self.directory / DATABASE)
        assert not (self.is_proven and verdict.faults), verdict.faults

    async def booked(self, digest: str, runs: int) -> None:
        """Waits until so many runs of a version are booked."""
        counted = self.parts.state.counted
        for _ in range(200):
            if (await self.parts.worker.run(counted, frozenset((digest,)))).runs == runs:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{runs} runs were not booked in time")


def proof_of(database: Path) -> Verdict:
    state = State(database, reading=True)
    try:
        return verify(state.audit.entries(), held=holding_of(state))
    finally:
        state.close()


@asynccontextmanager
async def _served(config: FleetConfig, port: int) -> AsyncIterator[tuple[Parts, str]]:
    async with opened(config) as parts:
        runner, url = await start_app(create_app(parts), "127.0.0.1", port, name="fleet", drain_s=1.0)
        try:
            yield parts, url
        finally:
            await runner.cleanup()
