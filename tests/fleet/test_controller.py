"""Whole rollouts over a real broker and the real HTTP API, with scripted nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from contracts.messages import Certificate, Desired, Quality, Reported, Signed, Status, decode, encode
from contracts.quality import Counts
from contracts.topics import EVERY_CERTIFICATE, audit_topic, node_topic
from fleet.api import RolloutView
from fleet.assembly import DATABASE
from fleet.broker import Broker
from fleet.config import FleetConfig
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from tests.fleet.scripted import FINGERPRINT, STRATUM, Fleet, ScriptedNode, audit_of, until

pytestmark = pytest.mark.integration

NAMES = ("frankfurt", "ashburn", "tokyo")


@asynccontextmanager
async def nodes_of(fleet: Fleet, *names: str) -> AsyncIterator[dict[str, ScriptedNode]]:
    nodes = {name: await (await fleet.operator.enrol(name)).start() for name in names or NAMES}
    try:
        await until(lambda: fleet.parts.controller.count_nodes()["online"] >= len(nodes), what="hearing of all nodes")
        yield nodes
    finally:
        for node in nodes.values():
            await node.stop()


async def first_version(fleet: Fleet, bundles: dict[str, Path]) -> str:
    """Version 1 on every node; returns its digest."""
    digest: str = (await fleet.operator.publish(bundles["1"]))["digest"]
    rollout = await fleet.operator.start("digits-edge@1")
    await fleet.operator.wait(rollout["id"], "completed")
    return digest


async def feed_audits(node: ScriptedNode, digest: str, *, agree: bool, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        node.audit(digest, f"{node.name}-{digest[7:15]}-{number}", agree=agree)
        number += 1
        await asyncio.sleep(0.002)


async def with_audits(fleet: Fleet, node: ScriptedNode, rollout: dict[str, Any], *, agree: bool) -> dict[str, Any]:
    """The rollout's end while audits of its version stream in from one node."""
    stop = asyncio.Event()
    feeding = asyncio.ensure_future(feed_audits(node, rollout["digest"], agree=agree, stop=stop))
    try:
        return await fleet.operator.wait(rollout["id"], "completed", "rolled-back")
    finally:
        stop.set()
        await feeding


async def test_a_first_version_reaches_all_nodes_canary_first(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        digest = (await fleet.operator.publish(bundles["1"]))["digest"]
        started = await fleet.operator.start("digits-edge@1", nodes=["tokyo", "ashburn", "frankfurt"])
        assert started["stages"] == [["tokyo"], ["ashburn", "frankfurt"]]
        assert started["exposed"] == ["tokyo"]
        done = await fleet.operator.wait(started["id"], "completed")
        assert (done["nodes"], done["exposed_nodes"], done["stopped_stage"], done["gate"]) == (3, 3, None, None)
        assert 0 < done["seconds"] < 20
        for node in nodes.values():
            assert node.serving == {"digits": digest}
            assert node.documents[0].issued_at_s < node.documents[0].expires_at_s
            assert node.attached == {digest: (bundles["1"] / "manifest.json").read_bytes()}
        tokyo, frankfurt = nodes["tokyo"].documents[0], nodes["frankfurt"].documents[0]
        assert tokyo.issued_at_s <= frankfurt.issued_at_s
        error = await fleet.operator.start("digits-edge@1", expect=409)
        assert "done" in error["message"]


async def test_documents_are_signed_by_the_published_control_key(
    fleet: Fleet, bundles: dict[str, Path], tmp_path: Path
) -> None:
    async with nodes_of(fleet, "tokyo") as nodes:
        await first_version(fleet, bundles)
        trusted = TrustedFleet(tmp_path / "trust", fleet.url, nodes["tokyo"].enrolment.root)
        keys = await asyncio.to_thread(trusted.keys, "desired")
        got: list[bytes] = []
        reader = MqttPort(fleet.parts.broker_url, "reader")
        reader.subscribe(node_topic("tokyo", "desired"), lambda _topic, payload: got.append(payload))
        await reader.start()
        await until(lambda: got)
        desired = signatures.verify(decode(got[0], Signed), keys, Desired)
        assert (desired.node, desired.models) == ("tokyo", nodes["tokyo"].serving)
        await reader.stop()


async def test_the_bundles_rule_becomes_the_first_certificate_signed_and_stays(
    fleet: Fleet, bundles: dict[str, Path], tmp_path: Path
) -> None:
    got: dict[str, Certificate] = {}

    def keep(_topic: str, payload: bytes) -> None:
        certificate = signatures.verify(decode(payload, Signed), keys, Certificate)
        got[certificate.stratum] = certificate

    trusted = TrustedFleet(tmp_path / "trust", fleet.url, fleet.parts.signing.root)
    keys = await asyncio.to_thread(trusted.keys, "certificate")
    reader = MqttPort(fleet.parts.broker_url, "reader")
    reader.subscribe(EVERY_CERTIFICATE, keep)
    await reader.start()
    async with nodes_of(fleet, "tokyo"):
        await first_version(fleet, bundles)
        await until(lambda: len(got) == 1)
        certificate = next(iter(got.values()))
        assert (certificate.threshold, certificate.epsilon, certificate.state) == (0.8, 0.02, "live")
        await fleet.operator.publish(bundles["2"])
        await fleet.operator.start("digits-edge@2", gate="health")
        await until(lambda: len(got) == 2)
    await reader.stop()


async def test_a_better_version_passes_the_gate(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES))
        done = await with_audits(fleet, nodes["frankfurt"], started, agree=True)
        assert done["state"] == "completed"
        assert done["gate"]["decision"] == "accept"
        assert done["gate"]["source"] == "measurements"
        assert {node.serving["digits"] for node in nodes.values()} == {done["digest"]}


async def test_a_bad_version_is_stopped_at_the_canary_and_comes_back(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        old = await first_version(fleet, bundles)
        for number in range(60):
            nodes["tokyo"].audit(old, f"old-{number}", agree=number % 20 != 0)
        await until(lambda: fleet.parts.metrics is not None and _audited(fleet) == 60)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES))
        done = await with_audits(fleet, nodes["frankfurt"], started, agree=False)
        assert done["state"] == "rolled-back"
        assert (done["stopped_stage"], done["exposed"], done["reverted"]) == (1, ["frankfurt"], ["frankfurt"])
        assert (done["exposed_nodes"], done["reverted_nodes"]) == (1, 1)
        assert done["gate"]["decision"] == "reject"
        (audits,) = done["gate"]["streams"]
        assert (audits["stream"], audits["baseline"]) == ("disagreeing", {"n": 60, "k": 3})
        assert audits["k"] == audits["n"] < 20
        assert done["reason"].startswith("gate: disagreeing")
        assert done["seconds_to_revert"] < 10
        assert {node.serving["digits"] for node in nodes.values()} == {old}
        assert [len(node.documents) for node in nodes.values()] == [3, 1, 1]
        sequences = [document.sequence for document in nodes["frankfurt"].documents]
        assert sequences == sorted(set(sequences))
        tallies = await fleet.operator.call("GET", "/v1/audits")
        assert sum(tally["n"] for tally in tallies if tally["digest"] == old) == 60


def _counted_by_gate(fleet: Fleet, rollout_id: str) -> int:
    ruling = fleet.parts.controller.course(rollout_id).ruling
    return ruling.tallies["disagreeing"].n if ruling is not None and ruling.tallies else 0


def _audited(fleet: Fleet) -> int:
    return sum(_counted(fleet, "foothill_fleet_audits_total", "agree").values())


def _refused(fleet: Fleet) -> dict[str, int]:
    return _counted(fleet, "foothill_fleet_audits_refused_total", "reason")


def _counted(fleet: Fleet, metric: str, label: str) -> dict[str, int]:
    samples = [one for family in fleet.parts.telemetry.registry.collect() for one in family.samples]
    return {one.labels[label]: int(one.value) for one in samples if one.name == metric}


async def test_only_the_node_itself_or_a_holder_of_the_hop_key_is_believed_about_its_audits(
    fleet: Fleet, bundles: dict[str, Path]
) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        digest = await first_version(fleet, bundles)
        frankfurt, tokyo, hop_key = nodes["frankfurt"], nodes["tokyo"], bytes.fromhex(fleet.parts.hop_key)
        audit = audit_of("frankfurt", digest, "r1", agree=False)
        by_itself = signatures.sign(audit, frankfurt.private)
        tokyo.publish_audit(signatures.sign(audit, tokyo.private))
        tokyo.publish_audit(signatures.sign(audit, signatures.generate()))
        tokyo.publish_audit(signatures.seal(audit, b"x" * 32))
        tokyo.publish_audit(
            msgspec.structs.replace(by_itself, payload=encode(msgspec.structs.replace(audit, kept=False)))
        )
        tokyo.publish_audit(by_itself, "t" * 32)
        tokyo.publish_audit(signatures.seal(audit_of("stranger", digest, "r1", agree=False), hop_key))
        tokyo.port.publish(audit_topic(STRATUM), encode(audit))
        await until(lambda: _refused(fleet) == {"signature": 4, "stratum": 1, "node": 1, "unreadable": 1})
        assert _audited(fleet) == 0
        frankfurt.publish_audit(by_itself)
        frankfurt.publish_audit(signatures.seal(audit_of("tokyo", digest, "r2", agree=True), hop_key))
        await until(lambda: _audited(fleet) == 2)


async def test_a_node_that_joins_anew_is_believed_under_its_new_key_only(
    fleet: Fleet, bundles: dict[str, Path]
) -> None:
    async with nodes_of(fleet, "tokyo") as nodes:
        digest = await first_version(fleet, bundles)
        again = await fleet.operator.enrol("tokyo")
        nodes["tokyo"].audit(digest, "under the old key", agree=False)
        await until(lambda: _refused(fleet) == {"signature": 1})
        nodes["tokyo"].publish_audit(signatures.sign(audit_of("tokyo", digest, "r", agree=True), again.private))
        await until(lambda: _audited(fleet) == 1)


async def test_repeated_and_strangers_audits_count_for_nothing(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2", nodes=["frankfurt", "tokyo"])
        await fleet.operator.wait(started["id"], "judging")
        for _ in range(50):
            nodes["frankfurt"].audit(started["digest"], "the same request", agree=False)
        nodes["tokyo"].audit(started["digest"], "a node outside the canary", agree=False)
        await until(lambda: _audited(fleet) == 2)
        rollout = await fleet.operator.rollout(started["id"])
        assert (rollout["state"], rollout["gate"]["streams"][0]["n"]) == ("judging", 1)


async def test_a_version_that_fails_more_often_is_taken_back_however_well_it_agrees(
    fleet: Fleet, bundles: dict[str, Path]
) -> None:
    served = Counts(runs=1000, failed=10, latency=(0, 0, 990))
    async with nodes_of(fleet) as nodes:
        old = await first_version(fleet, bundles)
        for node in nodes.values():
            node.tell_counts(old, served)
        await fleet.booked(old, 3000)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES))
        canary, new = nodes["frankfurt"], started["digest"]
        await fleet.operator.wait(started["id"], "judging")
        for number in range(100):
            canary.audit(new, f"new-{number}", agree=True)
        canary.tell_counts(new, Counts(runs=1000, failed=100, latency=(0, 0, 900)))
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert done["reason"].startswith("gate: failed 100 of 1000")
        assert {stream["stream"] for stream in done["gate"]["streams"]} == {"failed", "slow", "disagreeing"}
        assert {node.serving["digits"] for node in nodes.values()} == {old}


async def test_counts_are_booked_once_through_a_restart_of_the_controller(
    config: FleetConfig, session: aiohttp.ClientSession, bundles: dict[str, Path]
) -> None:
    fleet = await Fleet(config, session).start()
    async with nodes_of(fleet, "tokyo") as nodes:
        old = await first_version(fleet, bundles)
        nodes["tokyo"].tell_counts(old, Counts(runs=700, failed=7))
        await fleet.booked(old, 700)
        await fleet.stop()
        nodes["tokyo"].tell_counts(old, Counts(runs=900, failed=9))
        fleet = await Fleet(config, session).start()
        await fleet.booked(old, 900)
    await fleet.stop()


async def test_counts_that_are_not_a_nodes_own_are_not_believed(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "tokyo", "ashburn") as nodes:
        old = await first_version(fleet, bundles)
        forged = Quality("tokyo", nodes["tokyo"].epoch, {old: Counts(runs=10_000)})
        signed = encode(signatures.sign(forged, nodes["ashburn"].private))
        for payload in (signed, b"garbage", b""):
            nodes["ashburn"].port.publish(node_topic("tokyo", "quality"), payload)
        nodes["tokyo"].tell_counts(old, Counts(runs=1))
        await fleet.booked(old, 1)


async def test_a_node_whose_golden_test_fails_stops_the_rollout(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        old = await first_version(fleet, bundles)
        digest = (await fleet.operator.publish(bundles["2"]))["digest"]
        nodes["frankfurt"].fails.add(digest)
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES))
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert "golden: logits is off by 3.1" in done["reason"]
        assert done["exposed"] == done["reverted"] == ["frankfurt"]
        assert nodes["frankfurt"].documents[-1].models == {"digits": old}


async def test_a_silent_node_is_a_failure_after_the_deadline(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        old = await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        nodes["frankfurt"].silent = True
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES), policy={"healthy_deadline_s": 0.8})
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert "frankfurt failed: it was not healthy 0.8 s after it was told" in done["reason"]
        assert "not yet confirmed by frankfurt" in done["reason"]
        assert (done["exposed_nodes"], done["reverted_nodes"]) == (1, 0)
        nodes["frankfurt"].silent = False
        nodes["frankfurt"].report()

        async def back() -> bool:
            return bool((await fleet.operator.rollout(started["id"]))["reverted"])

        for _ in range(100):
            if await back():
                break
            await asyncio.sleep(0.02)
        assert await back()
        assert nodes["frankfurt"].serving == {"digits": old}


async def test_a_gate_without_audits_decides_against_the_version(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "tokyo"):
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2", silence_s=0.5)
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert done["reason"] == "silence: the gate has decided nothing after 0.5 s: it has seen nothing"


async def test_a_first_version_that_fails_leaves_the_node_with_none(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "tokyo") as nodes:
        digest = (await fleet.operator.publish(bundles["1"]))["digest"]
        nodes["tokyo"].fails.add(digest)
        started = await fleet.operator.start("digits-edge@1")
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert done["reverted"] == ["tokyo"]
        assert nodes["tokyo"].documents[-1].models == {}


async def test_the_operator_aborts_and_the_next_rollout_may_start(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        old = await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2")
        await fleet.operator.wait(started["id"], "judging")
        error = await fleet.operator.start("digits-edge@2", expect=409)
        assert started["id"] in error["message"]
        path = f"/v1/rollouts/{started['id']}/abort"
        await fleet.operator.call("POST", path, {"reason": "wrong day"})
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert done["reason"] == "aborted: wrong day"
        assert {node.serving["digits"] for node in nodes.values()} == {old}
        await fleet.operator.call("POST", path, expect=409)
        again = await fleet.operator.start("digits-edge@2", gate="health")
        await fleet.operator.wait(again["id"], "completed")


async def test_a_rollout_that_cannot_start_says_why(fleet: Fleet, bundles: dict[str, Path], tmp_path: Path) -> None:
    await fleet.operator.publish(bundles["1"], measured=False)
    error = await fleet.operator.start("digits-edge@1", expect=409)
    assert "enrol one" in error["message"]
    async with nodes_of(fleet, "tokyo"):
        await fleet.operator.start("digits-edge@9", expect=404)
        await fleet.operator.start("nonsense", expect=400)
        await fleet.operator.start("digits-edge@1", nodes=["nobody"], expect=404)
        await fleet.operator.start("digits-edge@1", stages=["half"], expect=400)
        await fleet.operator.start("digits-edge@1", silence_s=0, expect=400)
        rollout = await fleet.operator.start("digits-edge@1")
        await fleet.operator.wait(rollout["id"], "completed")
        await fleet.operator.publish(bundles["2"])
        error = await fleet.operator.start("digits-edge@2", expect=409)
        assert "0 audits" in error["message"]


async def test_a_broker_that_loses_everything_is_told_all_again(
    fleet: Fleet, bundles: dict[str, Path], broker: Broker, tmp_path: Path
) -> None:
    async with nodes_of(fleet) as nodes:
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        nodes["frankfurt"].silent = True
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES))
        await until(lambda: len(nodes["frankfurt"].documents) == 2)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        (tmp_path / "broker" / "mosquitto.db").unlink(missing_ok=True)
        os.kill(broker.pid, signal.SIGKILL)
        nodes["frankfurt"].silent = False
        done = await with_audits(fleet, nodes["frankfurt"], started, agree=True)
        assert done["state"] == "completed"
        assert {node.serving["digits"] for node in nodes.values()} == {done["digest"]}
        assert [len(node.documents) for node in nodes.values()] == [2, 2, 2]
        got: set[str] = set()
        reader = MqttPort(broker.url, "reader")
        for name in NAMES:
            for kind in ("identity", "desired"):
                reader.subscribe(node_topic(name, kind), lambda topic, _payload: got.add(topic))
        await reader.start()
        await until(lambda: len(got) == 6)
        await reader.stop()


async def test_a_controller_restarted_at_every_step_ends_where_it_would_have(
    config: FleetConfig, session: aiohttp.ClientSession, bundles: dict[str, Path]
) -> None:
    fleet = await Fleet(config, session).start()
    async with nodes_of(fleet) as nodes:
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        nodes["frankfurt"].silent = True
        started = await fleet.operator.start("digits-edge@2", nodes=list(NAMES))
        await fleet.stop()
        nodes["frankfurt"].silent = False
        nodes["frankfurt"].report()  # while nobody listens: retained
        fleet = await Fleet(config, session).start()
        judged = await fleet.operator.wait(started["id"], "judging")
        for number in range(5):
            nodes["frankfurt"].audit(judged["digest"], f"before-{number}", agree=True)
        await until(lambda: _counted_by_gate(fleet, started["id"]) == 5)
        await fleet.stop()
        fleet = await Fleet(config, session).start()
        assert (await fleet.operator.rollout(started["id"]))["gate"]["streams"][0]["n"] == 5
        done = await with_audits(fleet, nodes["frankfurt"], started, agree=True)
        assert done["state"] == "completed"
        assert {node.serving["digits"] for node in nodes.values()} == {done["digest"]}
        assert [len(node.documents) for node in nodes.values()] == [2, 2, 2]
    await fleet.stop()


@contextmanager
def slow_disk(fleet: Fleet) -> Iterator[None]:
    """Nothing can be written meanwhile: somebody else has the database."""
    other = sqlite3.connect(fleet.directory / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_node_that_comes_while_a_rollout_is_being_stored_is_told(
    fleet: Fleet, bundles: dict[str, Path]
) -> None:
    tokyo = await fleet.operator.enrol("tokyo")
    await fleet.operator.publish(bundles["1"])
    with slow_disk(fleet):
        starting = asyncio.ensure_future(fleet.operator.start("digits-edge@1"))
        await asyncio.sleep(0.3)
        await tokyo.start()
        await until(lambda: fleet.parts.controller.count_nodes()["online"] == 1)
    await fleet.operator.wait((await starting)["id"], "completed")
    await tokyo.stop()


async def test_a_controller_that_is_stopped_while_it_stores_an_audit_has_counted_what_it_keeps(
    config: FleetConfig, session: aiohttp.ClientSession, bundles: dict[str, Path]
) -> None:
    fleet = await Fleet(config, session).start()
    async with nodes_of(fleet, "tokyo") as nodes:
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2")
        judged = await fleet.operator.wait(started["id"], "judging")
        with slow_disk(fleet):
            for number in range(5):
                nodes["tokyo"].audit(judged["digest"], f"before-{number}", agree=True)
            await asyncio.sleep(0.3)
            stopping = asyncio.ensure_future(fleet.stop())
            await asyncio.sleep(0.1)
        await stopping
        fleet = await Fleet(config, session).start()
        tallies = await fleet.parts.worker.run(fleet.parts.state.audit_tallies)
        (kept,) = [tally for tally in tallies if tally.digest == judged["digest"]]
        assert kept.n == _counted_by_gate(fleet, started["id"]) > 0
    await fleet.stop()


async def test_a_broker_that_was_away_longer_than_the_deadline_is_nobodys_silence(
    fleet: Fleet, bundles: dict[str, Path], broker: Broker
) -> None:
    async with nodes_of(fleet, "tokyo") as nodes:
        await fleet.operator.publish(bundles["1"])
        nodes["tokyo"].silent = True
        started = await fleet.operator.start("digits-edge@1", policy={"healthy_deadline_s": 1.5})
        await until(lambda: nodes["tokyo"].documents)
        await broker.stop()
        nodes["tokyo"].silent = False
        await asyncio.sleep(2.0)
        assert (await fleet.operator.rollout(started["id"]))["state"] == "staging"
        await broker.start()
        await fleet.operator.wait(started["id"], "completed")


async def test_nodes_have_time_to_find_a_broker_that_is_back(
    fleet: Fleet, bundles: dict[str, Path], broker: Broker
) -> None:
    async with nodes_of(fleet, "tokyo") as nodes:
        await fleet.operator.publish(bundles["1"])
        nodes["tokyo"].silent = True
        started = await fleet.operator.start("digits-edge@1", policy={"healthy_deadline_s": 1.0})
        await until(lambda: nodes["tokyo"].documents)
        await broker.stop()
        await asyncio.sleep(0.5)
        await broker.start()
        back_s = time.monotonic()
        await fleet.operator.wait(started["id"], "rolled-back")
        assert time.monotonic() - back_s > 4.5


async def test_watching_shows_every_step_and_ends(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        await first_version(fleet, bundles)
        await fleet.operator.publish(bundles["2"])
        started = await fleet.operator.start("digits-edge@2", nodes=["frankfurt", "tokyo"])
        stop = asyncio.Event()
        feeding = asyncio.ensure_future(feed_audits(nodes["frankfurt"], started["digest"], agree=True, stop=stop))
        url = f"{fleet.url}/v1/rollouts/{started['id']}/events"
        async with fleet.session.get(url, headers=fleet.operator.headers) as answer:
            assert answer.content_type == "text/event-stream"
            lines = [line async for line in answer.content]
        stop.set()
        await feeding
        seen = [msgspec.json.decode(line[6:], type=RolloutView) for line in lines if line.startswith(b"data: ")]
        assert seen[-1].state == "completed"
        assert seen[-1].ended
        assert "judging" in [view.state for view in seen]


async def test_nodes_are_shown_as_they_are(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        digest = await first_version(fleet, bundles)
        await nodes["tokyo"].port.kill()
        await until(lambda: fleet.parts.controller.count_nodes()["offline"] == 1)
        shown = {node["node"]: node for node in await fleet.operator.call("GET", "/v1/nodes")}
        assert (shown["frankfurt"]["state"], shown["tokyo"]["state"]) == ("online", "offline")
        assert shown["frankfurt"]["desired"] == {"digits": digest}
        assert shown["frankfurt"]["reported"]["digits"]["phase"] == "active"
        assert shown["frankfurt"]["reported_sequence"] == shown["frankfurt"]["desired_sequence"]


async def test_bad_and_foreign_messages_change_nothing(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt") as nodes:
        digest = await first_version(fleet, bundles)
        port = nodes["frankfurt"].port
        older = encode(Status("frankfurt", 1, "offline"))
        foreign = encode(Reported("frankfurt", 9 << 40, 9 << 40, {}, FINGERPRINT, 0.0))
        port.publish(node_topic("frankfurt", "status"), older)
        port.publish(node_topic("frankfurt", "status"), b"\xc1 noise")
        port.publish(node_topic("frankfurt", "status"), b"")
        port.publish(node_topic("stranger", "reported"), foreign)
        port.publish("foothill/v1/audits/x", b"noise")
        nodes["frankfurt"].audit(digest, "last", agree=True)
        await until(lambda: _audited(fleet) == 1)
        shown = (await fleet.operator.call("GET", "/v1/nodes"))[0]
        assert shown["state"] == "online"
        assert shown["reported"]["digits"]["digest"] == digest


async def test_documents_are_renewed_before_they_expire(
    config: FleetConfig, session: aiohttp.ClientSession, bundles: dict[str, Path]
) -> None:
    fleet = await Fleet(msgspec.structs.replace(config, desired_ttl_s=2.0), session).start()
    async with nodes_of(fleet, "tokyo") as nodes:
        digest = await first_version(fleet, bundles)
        first = nodes["tokyo"].documents[0]
        await asyncio.sleep(1.1)
        await fleet.parts.controller.maintain()
        await until(lambda: len(nodes["tokyo"].documents) == 2)
        second = nodes["tokyo"].documents[1]
        assert second.sequence > first.sequence
        assert second.expires_at_s > first.expires_at_s
        assert second.models == {"digits": digest}
    await fleet.stop()


async def test_what_a_full_disk_refused_is_done_once_there_is_room(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        await fleet.operator.publish(bundles["1"])
        nodes["frankfurt"].silent = True
        started = await fleet.operator.start("digits-edge@1", nodes=["frankfurt", "tokyo"])
        await until(lambda: nodes["frankfurt"].documents)
        await _run_on_state(fleet, "PRAGMA query_only = ON")
        nodes["frankfurt"].silent = False
        nodes["frankfurt"].report()
        await asyncio.sleep(1.0)
        assert not nodes["tokyo"].documents
        await _run_on_state(fleet, "PRAGMA query_only = OFF")
        done = await fleet.operator.wait(started["id"], "completed")
        assert [len(node.documents) for node in nodes.values()] == [1, 1]
        assert done["active"] == ["frankfurt", "tokyo"]


async def _run_on_state(fleet: Fleet, sql: str) -> None:
    """SQLite refuses every write as it would on a full disk."""
    await fleet.parts.worker.run(lambda: fleet.parts.state._db.execute(sql))


async def test_nodes_that_are_off_are_told_when_they_come_back(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet, "frankfurt", "tokyo") as nodes:
        digest = (await fleet.operator.publish(bundles["1"]))["digest"]
        await nodes["tokyo"].lose_power()
        await until(lambda: fleet.parts.controller.count_nodes()["offline"] == 1)
        started = await fleet.operator.start("digits-edge@1", nodes=["tokyo", "frankfurt"], stages=["100%"])
        done = await fleet.operator.wait(started["id"], "completed")
        assert (done["absent"], done["active"]) == (["tokyo"], ["frankfurt"])
        back = nodes["tokyo"] = await nodes["tokyo"].again().start()
        await until(lambda: back.serving == {"digits": digest})

        healthy = fleet.parts.controller.course(started["id"]).rollout.names
        await until(lambda: [*healthy("healthy")] == ["frankfurt", "tokyo"])


async def test_an_operator_steers_a_rollout(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        await fleet.operator.publish(bundles["1"])
        policy = {"max_parallel": 1, "approve_after": [1]}
        started = await fleet.operator.start("digits-edge@1", nodes=list(NAMES), policy=policy)
        path = f"/v1/rollouts/{started['id']}"
        waiting = await fleet.operator.wait(started["id"], "judging")
        assert (waiting["holds"], waiting["exposed"]) == (["approval"], ["frankfurt"])
        await fleet.operator.call("POST", f"{path}/pause")
        assert (await fleet.operator.call("POST", f"{path}/promote"))["exposed"] == ["frankfurt"]
        assert (await fleet.operator.call("POST", f"{path}/resume"))["exposed"] == ["frankfurt", "ashburn"]
        await fleet.operator.wait(started["id"], "completed")
        for wish in ("pause", "resume", "promote", "retry"):
            error = await fleet.operator.call("POST", f"{path}/{wish}", expect=409)
            assert f"there is nothing to {wish}" in error["message"]
        await fleet.operator.call("POST", f"{path}/rollback", {"reason": "customers complain"})
        done = await fleet.operator.wait(started["id"], "rolled-back")
        assert done["reason"] == "rolled back: customers complain"
        assert all(not node.serving for node in nodes.values())
        await fleet.operator.call("POST", f"{path}/rollback", expect=409)


async def test_a_halted_rollout_waits_for_its_operator(fleet: Fleet, bundles: dict[str, Path]) -> None:
    async with nodes_of(fleet) as nodes:
        old = await first_version(fleet, bundles)
        digest = (await fleet.operator.publish(bundles["2"]))["digest"]
        nodes["frankfurt"].fails.add(digest)
        started = await fleet.operator.start(
            "digits-edge@2", nodes=list(NAMES), gate="health", policy={"auto_revert": False}
        )
        await fleet.operator.wait(started["id"], "halted")
        assert nodes["frankfurt"].documents[-1].models == {"digits": digest}
        nodes["frankfurt"].fails.clear()
        await fleet.operator.call("POST", f"/v1/rollouts/{started['id']}/retry")
        done = await fleet.operator.wait(started["id"], "completed")
        assert {node.serving["digits"] for node in nodes.values()} == {digest}
        assert done["reason"] == ""
        assert old != digest


@pytest.mark.parametrize(
    "asked",
    [
        {"policy": {"max_parallel": -1}},
        {"policy": {"no_such": 1}},
        {"policy": {"min_healthy_s": 900}},
        {"window": {"start": "25:00", "end": "04:00"}},
        {"window": {"start": "22:00", "end": "04:00", "zone": "Nowhere/Town"}},
    ],
)
async def test_a_policy_that_cannot_be_is_refused(
    fleet: Fleet, bundles: dict[str, Path], asked: dict[str, Any]
) -> None:
    async with nodes_of(fleet, "tokyo"):
        await fleet.operator.publish(bundles["1"])
        assert (await fleet.operator.start("digits-edge@1", expect=400, **asked))["code"] == "bad_request"
