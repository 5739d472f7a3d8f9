"""From a real broker and a fleet's signed metadata into the table, and nothing unsigned along with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts import topics
from contracts.errors import FoothillError
from contracts.messages import Audit, Certificate, Identity, Load, Reported, Signed, Status, decode, encode
from fleet.broker import Broker, BrokerConfig
from router.discovery import Discovery
from router.nodes import Nodes
from runtime.links.escalation.holder import Certificates
from runtime.links.http.upstream import Upstreams
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from runtime.links.trust.fleet_keys import REFRESH_PAUSE_S, FleetKeys
from runtime.links.trust.roots import open_fleet
from runtime.links.trust.tuf import TrustedFleet
from tests.fleet.scripted import until
from tests.router.rig import DUBLIN, STRATUM, certificate
from tests.router.test_selection import identity, reported
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

FLEET_KEY = signatures.generate()
OTHER_KEY = signatures.generate()
HOP_KEY = b"h" * 32


class Watched:
    """Lets a test wait for something that a change of the table or of the certificates makes true."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        async def wait() -> None:
            while not true():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), 20)


class WatchedNodes(Nodes):
    def __init__(self, watched: Watched) -> None:
        super().__init__(DUBLIN)
        self._watched = watched

    def put_identity(self, identity: Identity) -> None:
        super().put_identity(identity)
        self._watched.changed.set()

    def put_status(self, status: Status, now_s: float = 0.0) -> None:
        super().put_status(status, now_s)
        self._watched.changed.set()

    def put_reported(self, reported: Reported) -> None:
        super().put_reported(reported)
        self._watched.changed.set()

    def put_load(self, load: Load, now_s: float) -> None:
        super().put_load(load, now_s)
        self._watched.changed.set()


class WatchedCertificates(Certificates):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        super().__init__()

    def put(self, certificate: Certificate) -> None:
        super().put(certificate)
        self._watched.changed.set()


def opening(
    directory: Path, fleet_url: str, upstreams: Upstreams, root: Path | None = None
) -> Callable[[], Awaitable[TrustedFleet]]:
    return partial(open_fleet, root, directory / "router", fleet_url, upstreams)


class World:
    """A broker, a fleet's repository behind HTTP, a port to speak for nodes, and a discovery that listens."""

    def __init__(self, broker: Broker, repository: TufRepository, server: FleetServer, directory: Path) -> None:
        self.broker = broker
        self.repository = repository
        self.server = server
        self.directory = directory
        self.watched = Watched()
        self.nodes = WatchedNodes(self.watched)
        self.certificates = WatchedCertificates(self.watched)
        self.says = MqttPort(broker.url, "says")

    def discovery(self, fleet_url: str, upstreams: Upstreams) -> Discovery:
        keys = FleetKeys(opening(self.directory, fleet_url, upstreams), time.monotonic, refresh_pause_s=0.0)
        mqtt = MqttPort(self.broker.url, "router")
        return Discovery(
            mqtt, keys, self.nodes, self.certificates, time.monotonic, hop_key=HOP_KEY, verify_pause_s=0.05
        )

    def certify(self, certificate: Certificate, *, key: bytes = FLEET_KEY, topic: str = "") -> None:
        signed = signatures.sign(certificate, key, {"sha256:0": b"ballast"})
        self.says.publish(topic or topics.certificate_topic(certificate.stratum), encode(signed), retain=True)

    def identify(self, name: str, *, key: bytes = FLEET_KEY, topic: str = "") -> None:
        signed = signatures.sign(identity(name), key)
        self.says.publish(topic or topics.node_topic(name, "identity"), encode(signed), retain=True)

    def say(self, kind: str, message: Any, *, node: str = "", qos: int = 1) -> None:
        topic = topics.node_topic(node or message.node, kind)
        self.says.publish(topic, encode(message), retain=kind != "load", qos=qos)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker")))
    await broker.start()
    repository = TufRepository(tmp_path / "repository")
    repository.set_keys({signatures.public_key(FLEET_KEY): ["identity", "desired", "certificate"]})
    repository.publish()
    made = World(broker, repository, FleetServer(repository.directory), tmp_path)
    await made.says.start()
    await made.says.wait_connected(10)
    yield made
    await made.says.stop()
    await broker.stop()


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams()
    yield made
    await made.close()


@pytest.fixture
async def discovery(world: World, upstreams: Upstreams) -> AsyncIterator[Discovery]:
    made = world.discovery(await world.server.start(), upstreams)
    await made.start()
    yield made
    await made.stop()
    await world.server.stop()


async def test_a_signed_identity_and_what_the_node_says_make_a_node(world: World, discovery: Discovery) -> None:
    world.identify("edge-fra")
    world.say("status", Status("edge-fra", 1, "online"))
    world.say("reported", reported("edge-fra", "digits"))
    await world.watched.until(lambda: world.nodes.serving("digits") and world.nodes.all()[0].state == "online")
    world.say("load", Load("edge-fra", 1, 4, 0.5, 3.0), qos=0)
    await world.watched.until(lambda: world.nodes.all()[0].service_ms == 3.0)
    world.certify(certificate())
    await world.watched.until(lambda: world.certificates.get(STRATUM) == certificate())


async def test_nothing_unsigned_or_in_anothers_name_is_believed(
    world: World, discovery: Discovery, caplog: pytest.LogCaptureFixture
) -> None:
    world.identify("edge-bad", key=OTHER_KEY)
    world.identify("edge-fra", topic=topics.node_topic("edge-nrt", "identity"))
    world.says.publish(topics.node_topic("edge-raw", "identity"), encode(identity("edge-raw")), retain=True)
    world.say("status", Status("edge-fra", 9, "offline"), node="edge-iad")
    world.identify("edge-fra")
    world.say("status", Status("edge-fra", 1, "online"))
    await world.watched.until(lambda: world.nodes.all() and world.nodes.all()[0].state == "online")
    assert [node.name for node in world.nodes.all()] == ["edge-fra"]
    assert "identity of edge-nrt is refused" in caplog.text


async def test_a_certificate_that_the_fleet_did_not_sign_for_its_topic_is_ignored_with_a_word(
    world: World, discovery: Discovery, caplog: pytest.LogCaptureFixture
) -> None:
    world.certify(certificate())
    await world.watched.until(lambda: world.certificates.get(STRATUM))
    topic = topics.certificate_topic(STRATUM)
    newest = msgspec.structs.replace(certificate(), threshold=0.0, sequence=(1 << 53) - 1)
    for _ in range(20):
        world.certify(newest, key=OTHER_KEY)
        world.says.publish(topic, encode(newest), retain=True)
        world.certify(newest, topic=topics.certificate_topic("1" * 32))
    world.certify(msgspec.structs.replace(certificate(), threshold=float("nan"), sequence=8))
    world.certify(msgspec.structs.replace(certificate(), sequence=1 << 53))
    world.says.publish(topic, encode(signatures.seal(newest, HOP_KEY)), retain=True)
    world.says.publish(topic, b"", retain=True)
    last = msgspec.structs.replace(certificate(), sequence=9)
    world.certify(last)
    await world.watched.until(lambda: world.certificates.get(STRATUM) != certificate())
    assert world.certificates.get(STRATUM) == last
    assert world.certificates.get("1" * 32) is None
    refusals = [record.message for record in caplog.records if "is refused" in record.message]
    assert len(refusals) == 4
    for reason in ("is no Signed", "does not allow", "is no Certificate", f"stratum '{STRATUM}'"):
        assert sum(reason in refusal for refusal in refusals) == 1


async def test_a_certificate_waits_for_a_fleet_that_comes_later(
    world: World, upstreams: Upstreams, tmp_path: Path
) -> None:
    late = TufRepository(tmp_path / "late")
    world.server.directory = late.directory
    discovery = world.discovery(await world.server.start(), upstreams)
    await discovery.start()
    world.certify(certificate())
    await until(lambda: world.server.asked)
    assert world.certificates.get(STRATUM) is None
    late.set_keys({signatures.public_key(FLEET_KEY): ["certificate"]})
    late.publish()
    await world.watched.until(lambda: world.certificates.get(STRATUM) == certificate())
    await discovery.stop()
    await world.server.stop()


async def test_a_key_that_the_fleet_adds_later_is_learned(world: World, discovery: Discovery) -> None:
    world.identify("edge-fra")
    await world.watched.until(lambda: len(world.nodes.all()) == 1)
    world.identify("edge-nrt", key=OTHER_KEY)
    world.repository.set_keys({signatures.public_key(key): ["identity"] for key in (FLEET_KEY, OTHER_KEY)})
    world.repository.publish()
    await world.watched.until(lambda: len(world.nodes.all()) == 2)


async def test_identities_wait_for_a_fleet_that_comes_later(world: World, upstreams: Upstreams, tmp_path: Path) -> None:
    late = TufRepository(tmp_path / "late")
    world.server.directory = late.directory
    discovery = world.discovery(await world.server.start(), upstreams)
    await discovery.start()
    world.identify("edge-fra")
    world.say("status", Status("edge-fra", 1, "online"))
    await world.watched.until(lambda: world.nodes.unidentified() == ["edge-fra"])
    assert world.nodes.all() == []
    late.set_keys({signatures.public_key(FLEET_KEY): ["identity"]})
    late.publish()
    await world.watched.until(world.nodes.all)
    await discovery.stop()
    await world.server.stop()


async def test_a_pinned_root_and_verified_keys_outlast_the_fleet(world: World, upstreams: Upstreams) -> None:
    fleet_url = await world.server.start()
    world.identify("edge-fra")
    first = world.discovery(fleet_url, upstreams)
    await first.start()
    await world.watched.until(world.nodes.all)
    await first.stop()
    await world.server.stop()
    world.nodes = WatchedNodes(world.watched)
    second = world.discovery(fleet_url, upstreams)
    await second.start()
    await world.watched.until(world.nodes.all)
    await second.stop()


async def test_another_fleets_root_is_not_taken_for_the_pinned_one(
    world: World, upstreams: Upstreams, tmp_path: Path
) -> None:
    stranger = TufRepository(tmp_path / "stranger")
    root = tmp_path / "root.json"
    root.write_bytes(stranger.root_bytes)
    keys = FleetKeys(opening(tmp_path, await world.server.start(), upstreams, root), time.monotonic)
    with pytest.raises(FoothillError) as raised:
        await keys.holding("identity", "any")
    assert raised.value.code == "forbidden"
    await world.server.stop()


async def test_keys_are_asked_for_at_most_every_few_seconds(world: World, upstreams: Upstreams, tmp_path: Path) -> None:
    now_s = 100.0
    keys = FleetKeys(opening(tmp_path, await world.server.start(), upstreams), lambda: now_s)
    known = await keys.holding("identity", "unknown")
    assert set(known.values()) == {signatures.public_key(FLEET_KEY)}
    asked = len(world.server.asked)
    for use in ("identity", "certificate"):
        with pytest.raises(FoothillError, match="a moment ago"):
            await keys.holding(use, "unknown")
    (key_id,) = known
    assert await keys.holding("certificate", key_id) == known
    assert len(world.server.asked) == asked
    now_s += REFRESH_PAUSE_S
    await keys.holding("certificate", "unknown")
    assert len(world.server.asked) > asked
    await world.server.stop()


async def test_with_the_broker_away_the_table_stays(world: World, discovery: Discovery) -> None:
    world.identify("edge-fra")
    world.say("status", Status("edge-fra", 1, "online"))
    world.say("reported", reported("edge-fra", "digits"))
    await world.watched.until(lambda: world.nodes.serving("digits") and world.nodes.all()[0].state == "online")
    await world.broker.stop()
    assert [node.state for node in world.nodes.serving("digits")] == ["online"]


async def test_an_audit_is_published_under_its_stratum_and_sealed(world: World, discovery: Discovery) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    world.says.subscribe(topics.EVERY_AUDIT, lambda topic, payload: heard.put_nowait((topic, payload)))
    world.identify("edge-fra")
    await world.watched.until(world.nodes.all)
    audit = Audit(STRATUM, "digits", "sha256:x", "edge-fra", "r1", 0.5, True, "3", "7", 1.0)
    discovery.publish_audit(audit)
    topic, payload = await asyncio.wait_for(heard.get(), 10)
    assert topic == topics.audit_topic(STRATUM)
    assert signatures.open_sealed(decode(payload, Signed), HOP_KEY, Audit) == audit
