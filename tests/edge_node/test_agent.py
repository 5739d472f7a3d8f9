"""A node and its fleet over a real broker, real signatures, real TUF metadata and real HTTP."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from contracts import topics
from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from contracts.manifest import FILE
from contracts.messages import (
    MAX_EPOCH,
    Audit,
    Certificate,
    Desired,
    Load,
    Quality,
    Reported,
    Signed,
    Status,
    Vitals,
    decode,
    encode,
)
from edge_node.agent import Agent
from edge_node.certificates import NodeCertificates, seed_certificate
from edge_node.probation import Rule
from fleet.broker import Broker, BrokerConfig
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import fetch_bundle
from runtime.links.bundles.store import BundleStore
from runtime.links.mqtt.port import MqttPort, Will
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from runtime.serving.models.hosting import LoadFigures
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.bundle_factory import MODEL_FILE, describe
from tests.edge_node.workbench import LONG, NODE, QUICK, Bench, Warehouse, desired, until
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

pytestmark = pytest.mark.integration

T = TypeVar("T")
PRIVATE = signatures.generate()
FINGERPRINT = Fingerprint("cpu-x86", "x86_64", "linux", 2, 1 << 30, "CPUExecutionProvider", "onnxruntime")


class Mailbox:
    """A client that hears all and keeps the last word on every topic."""

    def __init__(self, url: str) -> None:
        self.port = MqttPort(url, "mailbox")
        self.last: dict[str, bytes] = {}
        self.heard: list[tuple[str, bytes]] = []
        self.port.subscribe(f"{topics.PREFIX}/#", self._hear)

    def read(self, kind: str, message: type[T]) -> T | None:
        payload = self.last.get(topics.node_topic(NODE, kind))
        return decode(payload, message) if payload else None

    def _hear(self, topic: str, payload: bytes) -> None:
        self.last[topic] = payload
        self.heard.append((topic, payload))


class Fleet:
    """Signs, serves and publishes like a fleet manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.private = signatures.generate()
        self.repository = TufRepository(directory / "repository")
        self.server = FleetServer(self.repository.directory)
        self.warehouse = Warehouse(directory / "warehouse")
        self.broker = Broker(BrokerConfig(port=0, state_dir=str(directory / "broker"), program="mosquitto"))
        self.url = ""

    async def start(self) -> None:
        self.sign_keys()
        self.url = await self.server.start()
        await self.broker.start()
        self.mail = Mailbox(self.broker.url)
        await self.mail.port.start()
        await self.mail.port.wait_connected(10)

    async def stop(self) -> None:
        await self.mail.port.stop()
        await self.broker.stop()
        await self.server.stop()

    def sign_keys(self) -> None:
        self.repository.set_keys({signatures.public_key(self.private): ["desired", "certificate"]})
        self.repository.publish()

    @property
    def keys(self) -> dict[str, str]:
        public = signatures.public_key(self.private)
        return {signatures.key_id(public): public}

    def stratum_of(self, digest: str) -> str:
        (artifact,) = describe(self.warehouse.packed[digest]).artifacts
        assert artifact.confidence is not None
        return artifact.confidence.stratum

    def publish_bundle(self, version: str) -> str:
        digest = self.warehouse.pack(version)
        directory = self.warehouse.packed[digest]
        for name in describe(directory).files:
            self.server.add_blob((directory / name).read_bytes())
        self.repository.add_bundle((directory / FILE).read_bytes())
        self.repository.publish()
        return digest

    def want(self, document: Desired, *, private: bytes = b"", attach: bool = False) -> None:
        attachments = {
            digest: (self.warehouse.packed[digest] / FILE).read_bytes() for digest in document.models.values() if attach
        }
        signed = signatures.sign(document, private or self.private, attachments)
        self.mail.port.publish(topics.node_topic(NODE, "desired"), encode(signed), retain=True)

    def certify(
        self, stratum: str, threshold: float, *, sequence: int = 1, topic: str = "", private: bytes = b""
    ) -> Certificate:
        certificate = Certificate(stratum, "digits", threshold, 0.05, 0.05, 100, "live", sequence, time.time())
        signed = signatures.sign(certificate, private or self.private)
        self.mail.port.publish(topic or topics.certificate_topic(stratum), encode(signed), retain=True)
        return certificate


class Life:
    """One life of the node under the fleet."""

    def __init__(self, fleet: Fleet, *, rule: Rule = QUICK, fleet_url: str = "") -> None:
        directory = fleet.directory / "node"
        url = fleet_url or fleet.url
        store = BundleStore(directory / "store", reserve_bytes=0)
        trust = TrustedFleet(directory / "trust", url, fleet.repository.root_bytes)
        fetch = partial(fetch_bundle, store, trust, http_ways(url, retry_delays_s=(0.0,)))
        self.bench = Bench(directory, fleet.warehouse, rule=rule, store=store, fetch=fetch)
        self.certificates = NodeCertificates(directory, partial(trust.keys, "certificate"))
        self.bench.serving_next = self._seed
        self.ports: list[MqttPort] = []
        self.load = LoadFigures(0, 0.0, 0.0)
        self.vitals = Vitals(1 << 30, 1 << 34, 40.0)
        self.fingerprint = FINGERPRINT
        self._broker_url = fleet.broker.url
        self.agent = Agent(
            node=NODE,
            private_key=PRIVATE,
            open_port=self._open_port,
            updater=self.bench.updater,
            trust=trust,
            certificates=self.certificates,
            fingerprint=lambda: self.fingerprint,
            load=lambda: self.load,
            vitals=lambda: self.vitals,
            vitals_every_s=0.05,
            looked=lambda vitals: self.bench.host.looked(strained=bool(vitals.throttled)),
            counts=self.bench.host.meters.counts,
            quality_every_s=0.05,
            capabilities=("gpu",),
            unread_pause_s=0.2,
        )

    async def start(self) -> None:
        await self.bench.updater.restore()
        await self.agent.start()

    async def stop(self) -> None:
        await self.agent.stop()
        await self.bench.host.close()

    def _open_port(self, will: Will) -> MqttPort:
        self.ports.append(MqttPort(self._broker_url, f"node-{NODE}", will=will))
        return self.ports[-1]

    def _seed(self, loaded: LoadedModel) -> None:
        seed = seed_certificate(loaded.manifest.model, loaded.artifact)
        assert seed is not None
        self.certificates.serve(seed)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    await fleet.start()
    yield fleet
    await fleet.stop()


@pytest.fixture
async def life(fleet: Fleet) -> AsyncIterator[Life]:
    life = Life(fleet)
    await life.start()
    yield life
    await life.stop()


def is_active(fleet: Fleet, digest: str, sequence: int) -> bool:
    reported = fleet.mail.read("reported", Reported)
    if reported is None or reported.sequence != sequence or "digits" not in reported.models:
        return False
    report = reported.models["digits"]
    return (report.phase, report.serving) == ("active", digest)


def is_online(fleet: Fleet) -> bool:
    status = fleet.mail.read("status", Status)
    return status is not None and status.state == "online"


async def test_a_node_says_that_it_is_there_and_what_it_is(fleet: Fleet, life: Life) -> None:
    await until(lambda: is_online(fleet) and fleet.mail.read("reported", Reported) is not None)
    reported = fleet.mail.read("reported", Reported)
    assert reported is not None
    assert (reported.node, reported.fingerprint, reported.models) == (NODE, FINGERPRINT, {})


async def test_a_signed_document_is_followed_to_its_end(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    await life.bench.ask()


async def test_manifests_that_ride_along_are_not_downloaded(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}), attach=True)
    await until(lambda: is_active(fleet, one, 1))
    assert not [path for path, _ in fleet.server.asked if "/targets/bundles" in path]


async def test_forged_foreign_and_stale_documents_are_refused(
    fleet: Fleet, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = fleet.publish_bundle("1"), fleet.publish_bundle("2")
    fleet.want(desired(5, {"digits": one}))
    await until(lambda: is_active(fleet, one, 5))
    fleet.want(desired(6, {"digits": two}), private=signatures.generate())
    fleet.want(desired(6, {"digits": two}, node="tokyo"))
    fleet.want(desired(4, {"digits": two}))
    fleet.want(desired(6, {"digits": two}, expires_in_s=-1.0))
    fleet.mail.port.publish(topics.node_topic(NODE, "desired"), b"nonsense", retain=True)
    fleet.mail.port.publish(topics.node_topic(NODE, "desired"), b"", retain=True)
    fleet.want(desired(7, {"digits": one}))
    await until(lambda: is_active(fleet, one, 7))
    for reason in ("does not allow", "node 'tokyo'", "below 5", "expired", "no Signed"):
        assert reason in caplog.text
    assert two not in life.bench.store.digests()


async def test_a_document_altered_on_its_way_is_refused(fleet: Fleet, life: Life) -> None:
    one, two = fleet.publish_bundle("1"), fleet.publish_bundle("2")
    signed = signatures.sign(desired(1, {"digits": one}), fleet.private)
    altered = msgspec.structs.replace(signed, payload=encode(desired(1, {"digits": two})))
    fleet.mail.port.publish(topics.node_topic(NODE, "desired"), encode(altered), retain=True)
    fleet.want(desired(2, {"digits": one}))
    await until(lambda: is_active(fleet, one, 2))
    assert life.bench.store.digests() == [one]


async def test_a_newer_document_ends_the_work_on_an_older_one(fleet: Fleet) -> None:
    one, two = fleet.publish_bundle("1"), fleet.publish_bundle("2")
    quick = Life(fleet)
    await quick.start()
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    await quick.stop()
    life = Life(fleet, rule=LONG)
    await life.start()
    fleet.want(desired(2, {"digits": two}))
    await until(lambda: life.bench.serving() == two and life.bench.report().phase == "probation")
    fleet.want(desired(3, {"digits": one}))
    await until(lambda: life.bench.serving() == one)
    reported = fleet.mail.read("reported", Reported)
    assert reported is not None
    assert life.bench.updater.sequence == 3
    await life.stop()


async def test_a_fleet_that_is_away_is_waited_for(fleet: Fleet, life: Life) -> None:
    one, two = fleet.publish_bundle("1"), fleet.publish_bundle("2")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    file = describe(fleet.warehouse.packed[two]).files[MODEL_FILE]
    fleet.server.status[file.sha256].extend([503] * 2)
    fleet.want(desired(2, {"digits": two}))
    await until(lambda: "HTTP 503" in life.bench.report().error)
    assert life.bench.serving() == one
    await until(lambda: is_active(fleet, two, 2))


async def test_keys_never_seen_are_waited_for(fleet: Fleet) -> None:
    one = fleet.publish_bundle("1")
    timestamp = fleet.repository.metadata("timestamp.json")
    kept = timestamp.read_bytes()
    timestamp.unlink()
    life = Life(fleet)
    await life.start()
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: any("timestamp" in path for path, _ in fleet.server.asked))
    timestamp.write_bytes(kept)
    await until(lambda: is_active(fleet, one, 1))
    await life.stop()


async def test_a_new_signing_key_is_learnt_from_the_metadata(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    fleet.private = signatures.generate()
    fleet.sign_keys()
    fleet.want(desired(2, {"digits": one}))
    await until(lambda: is_active(fleet, one, 2))


async def test_certificates_follow_the_model(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    stratum = fleet.stratum_of(one)
    fleet.certify(stratum, 0.1, topic=topics.certificate_topic("other"))
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    live = life.certificates.live.get(stratum)
    assert live is not None
    assert (live.threshold, live.sequence) == (0.5, 0)
    fleet.certify(stratum, 0.9)
    await until(lambda: life.certificates.live.get(stratum) != live)
    after = life.certificates.live.get(stratum)
    assert after is not None
    assert after.threshold == 0.9


async def test_a_certificate_that_the_fleet_did_not_sign_changes_nothing_now_or_later(
    fleet: Fleet, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    one = fleet.publish_bundle("1")
    stratum = fleet.stratum_of(one)
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    for _ in range(3):
        forged = fleet.certify(stratum, 0.0, sequence=(1 << 53) - 1, private=signatures.generate())
        fleet.mail.port.publish(topics.certificate_topic(stratum), encode(forged), retain=True)
    fleet.certify(stratum, 0.0, sequence=1 << 53)
    fleet.certify(stratum, float("nan"), sequence=7)
    fleet.certify("1" * 32, 0.0, sequence=8, topic=topics.certificate_topic(stratum))
    issued = fleet.certify(stratum, 0.9)
    await until(lambda: life.certificates.live.get(stratum) == issued, 30.0)
    assert caplog.text.count("is refused, and others like it") == 4
    again = NodeCertificates(fleet.directory / "node", lambda: fleet.keys)
    again.serve(msgspec.structs.replace(issued, sequence=0))
    assert again.live.get(stratum) == issued


async def test_a_certificate_waits_for_keys_never_seen(fleet: Fleet) -> None:
    timestamp = fleet.repository.metadata("timestamp.json")
    kept = timestamp.read_bytes()
    timestamp.unlink()
    life = Life(fleet)
    await life.start()
    issued = fleet.certify("1" * 32, 0.9)
    await until(lambda: any("timestamp" in path for path, _ in fleet.server.asked))
    assert life.certificates.waiting == 0
    timestamp.write_bytes(kept)
    await until(lambda: life.certificates.waiting == 1, 30.0)
    life.certificates.serve(msgspec.structs.replace(issued, sequence=0))
    assert life.certificates.live.get("1" * 32) == issued
    await life.stop()


async def test_a_killed_node_is_reported_gone_and_a_stopped_one_says_so(fleet: Fleet) -> None:
    life = Life(fleet)
    await life.start()
    await until(lambda: is_online(fleet))
    await life.ports[-1].kill()
    await until(lambda: not is_online(fleet))
    await life.stop()
    again = Life(fleet)
    await again.start()
    await until(lambda: is_online(fleet))
    again.agent.drain()
    await until(lambda: fleet.mail.read("status", Status) == Status(NODE, again.agent.epoch, "draining", ("gpu",)))
    await again.stop()
    await until(lambda: fleet.mail.read("status", Status) == Status(NODE, again.agent.epoch, "offline", ("gpu",)))


async def test_somebody_elses_word_on_the_nodes_status_is_replaced(
    fleet: Fleet, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    await until(lambda: is_online(fleet))
    topic = topics.node_topic(NODE, "status")
    fleet.mail.port.publish(topic, encode(Status(NODE, 1, "offline")), retain=True)
    own = (topic, encode(Status(NODE, life.agent.epoch, "online", ("gpu",))))
    await until(lambda: fleet.mail.heard.count(own) == 2)
    fleet.mail.port.publish(topic, encode(Status(NODE, life.agent.epoch, "online", ("roof",))), retain=True)
    await until(lambda: fleet.mail.heard.count(own) == 3)
    later = life.agent.epoch + 1_000_000
    fleet.mail.port.publish(topic, encode(Status(NODE, later, "offline")), retain=True)
    await until(lambda: fleet.mail.read("status", Status) == Status(NODE, later + 1, "online", ("gpu",)))
    assert "taking the name back" in caplog.text
    await life.ports[-1].kill()
    await until(lambda: fleet.mail.read("status", Status) == Status(NODE, later + 1, "offline", ("gpu",)))


@pytest.mark.parametrize(
    "theirs",
    [
        encode(Status(NODE, MAX_EPOCH, "offline")),
        encode(Status(NODE, 2**64 - 1, "offline")),
        b"\xc1",
    ],
)
async def test_no_word_on_the_nodes_status_is_beyond_correction(fleet: Fleet, life: Life, theirs: bytes) -> None:
    await until(lambda: is_online(fleet))
    topic = topics.node_topic(NODE, "status")
    fleet.mail.port.publish(topic, theirs, retain=True)
    await until(lambda: (topic, theirs) in fleet.mail.heard)
    await until(lambda: fleet.mail.heard[-1] != (topic, theirs) and is_online(fleet))
    assert fleet.mail.read("status", Status) == Status(NODE, life.agent.epoch, "online", ("gpu",))


async def test_a_broker_that_comes_back_empty_is_told_everything_again(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    fleet.mail.last.clear()
    assert fleet.broker.pid is not None
    (child,) = _children(fleet.broker.pid) or [fleet.broker.pid]
    os.kill(child, signal.SIGKILL)
    await life.bench.ask()
    await until(lambda: is_online(fleet) and is_active(fleet, one, 1), 30.0)


async def test_a_node_without_a_broker_serves_and_finds_it_later(fleet: Fleet) -> None:
    one, two = fleet.publish_bundle("1"), fleet.publish_bundle("2")
    life = Life(fleet)
    await life.start()
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    await life.stop()
    await fleet.broker.stop()
    life = Life(fleet)
    await life.start()
    await life.bench.ask()
    assert life.bench.serving() == one
    await fleet.broker.start()
    fleet.want(desired(2, {"digits": two}))
    await until(lambda: fleet.mail.port.connected)
    fleet.want(desired(2, {"digits": two}))
    await until(lambda: is_active(fleet, two, 2), 30.0)
    await life.stop()


async def test_load_is_told_when_it_changes(fleet: Fleet, life: Life) -> None:
    await until(lambda: is_online(fleet))
    life.load = LoadFigures(3, 1.5, 2.5)
    await until(lambda: fleet.mail.read("load", Load) == Load(NODE, life.agent.epoch, 3, 1.5, 2.5))
    fleet.mail.last.clear()
    life.load = LoadFigures(0, 1.0, 2.5)
    await until(lambda: fleet.mail.read("load", Load) == Load(NODE, life.agent.epoch, 0, 1.0, 2.5))


async def test_the_machine_is_told_when_it_changes_and_only_then(fleet: Fleet, life: Life) -> None:
    def told() -> Vitals | None:
        reported = fleet.mail.read("reported", Reported)
        return reported.vitals if reported is not None else None

    await until(lambda: told() == life.vitals)
    fleet.mail.heard.clear()
    hot = Vitals(1 << 30, 1 << 34, 85.0, True)
    for degrees in range(40, 45):
        life.vitals = Vitals(1 << 30, 1 << 34, float(degrees))
    life.vitals = hot
    await until(lambda: told() == hot)
    assert len([topic for topic, _ in fleet.mail.heard if topic.endswith("/reported")]) <= 2


async def test_a_document_by_a_new_key_waits_for_a_fleet_that_is_away(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    timestamp = fleet.repository.metadata("timestamp.json")
    timestamp.unlink()
    fleet.server.asked.clear()
    fleet.private = signatures.generate()
    fleet.want(desired(2, {"digits": one}))
    await until(lambda: any("timestamp" in path for path, _ in fleet.server.asked))
    assert is_active(fleet, one, 1)
    fleet.sign_keys()
    await until(lambda: is_active(fleet, one, 2))


async def test_audits_are_published_under_their_stratum_signed_by_the_node(fleet: Fleet, life: Life) -> None:
    await until(lambda: is_online(fleet))
    audit = Audit("s" * 32, "digits", "sha256:" + "a" * 64, NODE, "r1", 0.7, True, "3", "5", time.time())
    life.agent.publish_audit(audit)
    await until(lambda: topics.audit_topic(audit.stratum) in fleet.mail.last)
    signed = decode(fleet.mail.last[topics.audit_topic(audit.stratum)], Signed)
    public = signatures.public_key(PRIVATE)
    assert signatures.verify(signed, {signatures.key_id(public): public}, Audit) == audit


def told_quality(fleet: Fleet) -> Quality:
    signed = fleet.mail.read("quality", Signed)
    public = signatures.public_key(PRIVATE)
    return signatures.verify(signed, {signatures.key_id(public): public}, Quality) if signed else Quality(NODE, 0, {})


async def test_how_versions_serve_is_told_in_totals_signed_by_the_node(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    for _ in range(3):
        await life.bench.ask()
    life.bench.break_engine()
    with pytest.raises(FoothillError):
        await life.bench.ask()
    life.vitals = Vitals(1 << 30, 1 << 34, 85.0, True)
    await until(lambda: one in (seen := told_quality(fleet).versions) and seen[one].strained > 0)
    told = told_quality(fleet)
    assert (told.node, told.epoch) == (NODE, life.agent.epoch)
    assert (told.versions[one].failed, told.versions[one].runs - told.versions[one].failed) == (1, 3)


async def test_whoever_listens_later_hears_how_versions_have_served(fleet: Fleet, life: Life) -> None:
    one = fleet.publish_bundle("1")
    fleet.want(desired(1, {"digits": one}))
    await until(lambda: is_active(fleet, one, 1))
    await life.bench.ask()
    await until(lambda: one in told_quality(fleet).versions)
    late = Mailbox(fleet.broker.url)
    await late.port.start()
    await until(lambda: topics.node_topic(NODE, "quality") in late.last)
    await late.port.stop()


async def test_an_unexpected_failure_is_logged_and_tried_again(
    fleet: Fleet, life: Life, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fleet.publish_bundle("1")
    broken = True
    take = life.bench.slots.take

    def take_or_fail(sequence: int) -> None:
        if broken:
            raise OSError("No space left on device")
        take(sequence)

    monkeypatch.setattr(life.bench.slots, "take", take_or_fail)
    with caplog.at_level(logging.ERROR):
        fleet.want(desired(1, {"digits": one}))
        await until(lambda: "No space left" in caplog.text)
    broken = False
    await until(lambda: life.bench.slots.sequence == 1)
    assert is_active(fleet, one, 1)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_signed_document_survives_the_wire() -> None:
    signed = signatures.sign(desired(1, {"digits": "sha256:" + "a" * 64}), signatures.generate())
    assert decode(encode(signed), Signed) == signed


async def test_a_fingerprint_that_changes_is_told_within_a_pause(fleet: Fleet, life: Life) -> None:
    def told() -> Fingerprint | None:
        reported = fleet.mail.read("reported", Reported)
        return reported.fingerprint if reported is not None else None

    await until(lambda: told() == FINGERPRINT)
    life.fingerprint = msgspec.structs.replace(FINGERPRINT, power_mode="15W")
    await until(lambda: told() == life.fingerprint)
