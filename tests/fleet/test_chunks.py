"""Chunks from a real fleet manager over a real broker: who gets what, and who does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import msgspec
import pytest

from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.messages import MAX_CHUNK_MESSAGE_BYTES, Chunk, ChunkWant, Signed, decode, encode
from contracts.topics import chunk_topic
from fleet.chunks import ChunkSettings
from fleet.config import FleetConfig
from runtime.links.bundles.fetch import fetch_bundle
from runtime.links.bundles.store import BundleStore
from runtime.links.chunks.fetcher import ChunkFetcher
from runtime.links.chunks.line import ChunkLine, Terms
from runtime.links.chunks.way import chunk_ways
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet, TrustUnavailable, known_keys
from tests.fleet.scripted import Fleet, ScriptedNode, until, write_bundle

NOWHERE = "http://127.0.0.1:9"


class Puller:
    """An enrolled node that has nothing but its enrolment and the broker."""

    def __init__(self, node: ScriptedNode, directory: Path, *, give_up_s: float = 20.0, name: str = "") -> None:
        self.node = node
        trust_dir = directory / f"{name or node.name}-trust"
        self.store = BundleStore(directory / f"{name or node.name}-store", reserve_bytes=0)
        self.line = ChunkLine(
            node=name or node.name,
            private_key=node.private,
            open_port=self._open_port,
            keys=lambda: known_keys(trust_dir, "chunk"),
            terms=Terms(give_up_s=give_up_s),
        )
        fetcher = ChunkFetcher(self.line, NOWHERE)
        self.trust = TrustedFleet(trust_dir, NOWHERE, node.enrolment.root, fetcher=fetcher)

    async def fetch(self, digest: str) -> Path:
        return await fetch_bundle(self.store, self.trust, chunk_ways(self.line), "digits", digest, None)

    async def first_chunk(self, content: str) -> bytes:
        async with self.line.opened():
            pull = self.line.pull(content, [0], None)
            try:
                return (await pull.next())[0].data
            finally:
                pull.close()

    def _open_port(self) -> MqttPort:
        return MqttPort(
            self.node.enrolment.broker_url, f"{self.node.name}-chunks", max_packet_bytes=MAX_CHUNK_MESSAGE_BYTES
        )


@pytest.fixture
async def published(fleet: Fleet, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Two bundles: the first is assigned to `tokyo`, the second to nobody."""
    digests = {version: write_bundle(tmp_path / version, version) for version in ("1", "2")}
    for version in digests:
        await fleet.operator.publish(tmp_path / version)
    tokyo = await (await fleet.operator.enrol("tokyo")).start()
    rollout = await fleet.operator.start("digits-edge@1", gate="health", nodes=["tokyo"])
    await fleet.operator.wait(rollout["id"], "completed")
    yield digests
    await tokyo.stop()


async def again(fleet: Fleet, name: str) -> ScriptedNode:
    """The node's next enrolment: the test needs its key."""
    return await fleet.operator.enrol(name)


async def test_a_bundle_comes_from_nothing_but_an_enrolment(
    fleet: Fleet, published: dict[str, str], tmp_path: Path
) -> None:
    puller = Puller(await again(fleet, "tokyo"), tmp_path)
    path = await puller.fetch(published["1"])
    assert (path / manifests.FILE).read_bytes() == (tmp_path / "1" / manifests.FILE).read_bytes()
    assert (path / "cpu.onnx").read_bytes() == (tmp_path / "1" / "cpu.onnx").read_bytes()
    assert puller.line.heard["unsigned"] == puller.line.heard["unreadable"] == 0


async def test_a_node_reads_its_own_bundles_and_no_others(
    fleet: Fleet, published: dict[str, str], tmp_path: Path
) -> None:
    files = manifests.decode((tmp_path / "2" / manifests.FILE).read_bytes()).files
    stranger = Puller(await again(fleet, "frankfurt"), tmp_path)
    owner = Puller(await again(fleet, "tokyo"), tmp_path)
    for puller in (stranger, owner):
        await asyncio.to_thread(puller.trust.refresh)
        with pytest.raises(FoothillError, match="not assigned to this node"):
            await puller.first_chunk(files["cpu.onnx"].sha256)
    shared = files["golden/inputs/image.npy"].sha256
    assert await owner.first_chunk(shared) == b"the same golden input"


@pytest.mark.parametrize("content", ["sha256:" + "0" * 64, "metadata/9.root.json"])
async def test_what_is_not_there_is_told(fleet: Fleet, published: dict[str, str], tmp_path: Path, content: str) -> None:
    puller = Puller(await again(fleet, "tokyo"), tmp_path)
    await asyncio.to_thread(puller.trust.refresh)
    with pytest.raises(FoothillError) as refused:
        await puller.first_chunk(content)
    assert refused.value.code == "not_found"


@pytest.mark.parametrize(
    "content",
    ["metadata/../../keys/control.key", "/etc/passwd", "metadata/..json", "targets/../metadata/timestamp.json", "x"],
)
async def test_no_path_leads_out_of_the_signed_metadata(
    fleet: Fleet, published: dict[str, str], tmp_path: Path, content: str
) -> None:
    puller = Puller(await again(fleet, "tokyo"), tmp_path, give_up_s=0.3)
    await asyncio.to_thread(puller.trust.refresh)
    with pytest.raises(FoothillError):
        await puller.first_chunk(content)
    await until(lambda: refusals(fleet) + puller.line.heard["taken"] > 0)
    assert b"root:" not in await puller.first_chunk("metadata/timestamp.json")


async def test_wants_that_their_node_has_not_signed_are_not_answered(
    fleet: Fleet, published: dict[str, str], tmp_path: Path
) -> None:
    tokyo, frankfurt = await again(fleet, "tokyo"), await again(fleet, "frankfurt")
    file = manifests.decode((tmp_path / "1" / manifests.FILE).read_bytes()).files["cpu.onnx"].sha256
    heard: list[str] = []
    port = MqttPort(tokyo.enrolment.broker_url, "hostile")
    port.subscribe(chunk_topic("tokyo", "piece"), lambda topic, _: heard.append(topic), qos=0)
    await port.start()
    await port.wait_connected(20)
    want = ChunkWant("tokyo", 1, file, (0,))
    topic = chunk_topic("tokyo", "want")
    port.publish(topic, encode(signatures.sign(want, frankfurt.private)), qos=0)
    port.publish(topic, encode(signatures.sign(ChunkWant("frankfurt", 1, file, (0,)), tokyo.private)), qos=0)
    port.publish(chunk_topic("paris", "want"), encode(signatures.sign(want, tokyo.private)), qos=0)
    port.publish(topic, b"nonsense", qos=0)
    port.publish(topic, encode(want), qos=0)
    await until(lambda: refusals(fleet) >= 5)
    assert heard == []
    port.publish(topic, encode(signatures.sign(want, tokyo.private)), qos=0)
    await until(lambda: heard)
    await port.stop()


async def test_metadata_comes_while_every_thread_waits_for_it(
    fleet: Fleet, published: dict[str, str], tmp_path: Path
) -> None:
    """More fetches than the loop has threads, all behind one lock: the line itself must need none of them."""
    puller = Puller(await again(fleet, "tokyo"), tmp_path)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    paths = await asyncio.wait_for(asyncio.gather(*(puller.fetch(published["1"]) for _ in range(6))), 60)
    assert len(set(paths)) == 1


async def test_the_loops_own_thread_is_told_that_it_would_wait_for_itself(
    fleet: Fleet, published: dict[str, str], tmp_path: Path
) -> None:
    puller = Puller(await again(fleet, "tokyo"), tmp_path)
    with pytest.raises(TrustUnavailable, match="wait for itself"):
        puller.trust.refresh()


async def test_what_lies_behind_the_end_is_not_answered_and_costs_the_next_nothing(
    fleet: Fleet, published: dict[str, str], tmp_path: Path
) -> None:
    tokyo = await again(fleet, "tokyo")
    file = manifests.decode((tmp_path / "1" / manifests.FILE).read_bytes()).files["cpu.onnx"].sha256
    heard: list[Chunk] = []
    port = MqttPort(tokyo.enrolment.broker_url, "wide")
    port.subscribe(
        chunk_topic("tokyo", "piece"),
        lambda _, payload: heard.append(decode(decode(payload, Signed).payload, Chunk)),
        qos=0,
    )
    await port.start()
    await port.wait_connected(20)
    want = ChunkWant("tokyo", 1, file, (1, 5, (1 << 32) - 1, 0))
    port.publish(chunk_topic("tokyo", "want"), encode(signatures.sign(want, tokyo.private)), qos=0)
    await until(lambda: heard)
    assert [chunk.index for chunk in heard] == [0]
    await port.stop()


async def test_the_rate_is_bounded_where_the_configuration_says_so(
    config: FleetConfig, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """0.2 s for each of ten wants at this rate: what is asked for faster waits."""
    slow = msgspec.structs.replace(config, chunks=ChunkSettings(max_bytes_per_s=5_000))
    fleet = await Fleet(slow, session).start()
    puller = Puller(await again(fleet, "tokyo"), tmp_path)
    began_s = asyncio.get_running_loop().time()
    await asyncio.to_thread(puller.trust.refresh)
    sent = float(await metric(fleet, "foothill_fleet_chunk_bytes_total"))
    assert sent > 2_000
    assert asyncio.get_running_loop().time() - began_s >= (sent - 2_000) / 5_000
    await fleet.stop()


async def test_a_fleet_that_serves_no_chunks_is_silent(
    config: FleetConfig, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    fleet = await Fleet(msgspec.structs.replace(config, chunks=ChunkSettings(serve=False)), session).start()
    puller = Puller(await again(fleet, "tokyo"), tmp_path, give_up_s=0.3)
    with pytest.raises(TrustUnavailable, match="no chunk for"):
        await asyncio.to_thread(puller.trust.refresh)
    await fleet.stop()


def refusals(fleet: Fleet) -> float:
    found = fleet.parts.telemetry.registry.get_sample_value("foothill_fleet_chunk_wants_refused_total")
    return found or 0.0


async def metric(fleet: Fleet, name: str) -> str:
    async with fleet.session.get(f"{fleet.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name} "))
