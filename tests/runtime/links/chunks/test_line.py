"""Chunks over a real broker, from a fleet that loses, repeats, delays and lies."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.manifest import File, digest_of
from contracts.messages import CHUNK_BYTES, MAX_CHUNK_MESSAGE_BYTES, Chunk, ChunkWant, Signed, decode, encode
from contracts.topics import EVERY_WANT, chunk_topic
from fleet.broker import Broker, BrokerConfig
from runtime.links.bundles.store import BundleStore, size_of
from runtime.links.chunks.line import PATIENT, ChunkLine, Terms
from runtime.links.chunks.way import chunk_ways
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures

pytestmark = pytest.mark.integration

NODE = "frankfurt"
CONTENT = os.urandom(20 * CHUNK_BYTES + 1234)
FILE = File(digest_of(CONTENT), len(CONTENT))
QUICK = Terms(connect_s=5.0, give_up_s=1.0)

Fate = Callable[[ChunkWant, int], "list[bytes]"]
"""What is sent for one chunk of a want."""


class ScriptedFleet:
    """Answers the wants of one node, each chunk by its fate."""

    def __init__(self, url: str) -> None:
        self.private = signatures.generate()
        self.node_private = signatures.generate()
        self.port = MqttPort(url, "scripted-fleet")
        self.port.subscribe(EVERY_WANT, self._on_want, qos=0)
        self.wants: list[ChunkWant] = []
        self.fate: Fate = lambda want, index: [self.chunk(want, index)]

    @property
    def keys(self) -> dict[str, str]:
        public = signatures.public_key(self.private)
        return {signatures.key_id(public): public}

    def chunk(self, want: ChunkWant, index: int, *, private: bytes = b"", data: bytes | None = None) -> bytes:
        data = CONTENT[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES] if data is None else data
        chunk = Chunk(want.ask, want.content, index, len(CONTENT), digest_of(data))
        return encode(signatures.sign(chunk, private or self.private, {chunk.data: data}))

    def send(self, payload: bytes) -> None:
        self.port.publish(chunk_topic(NODE, "piece"), payload, qos=0)

    def asked(self) -> list[int]:
        return [index for want in self.wants for index in want.chunks]

    def _on_want(self, topic: str, payload: bytes) -> None:
        public = signatures.public_key(self.node_private)
        want = signatures.verify(decode(payload, Signed), {signatures.key_id(public): public}, ChunkWant)
        assert topic == chunk_topic(want.node, "want")
        self.wants.append(want)
        for index in want.chunks:
            for answer in self.fate(want, index):
                self.send(answer)


class Rig:
    """A line between a node's store and the scripted fleet."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self.broker = broker
        self.fleet = ScriptedFleet(broker.url)
        self.store = BundleStore(directory / "store", reserve_bytes=0, sync_bytes=4 * CHUNK_BYTES)
        self.line = self.new_line(PATIENT)
        self.told: list[int] = []

    def new_line(self, terms: Terms = QUICK, url: str = "") -> ChunkLine:
        return ChunkLine(
            node=NODE,
            private_key=self.fleet.node_private,
            open_port=lambda: MqttPort(url or self.broker.url, "node-chunks", max_packet_bytes=MAX_CHUNK_MESSAGE_BYTES),
            keys=lambda: self.fleet.keys,
            terms=terms,
        )

    async def bring(self, file: File = FILE) -> bytes:
        async with chunk_ways(self.line)() as way:
            await way.bring(self.store, file, self.told.append)
        return self.store.partial(file.sha256).read_bytes()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker")))
    await broker.start()
    rig = Rig(broker, tmp_path)
    await rig.fleet.port.start()
    await rig.fleet.port.wait_connected(15)
    yield rig
    await rig.fleet.port.stop()
    await broker.stop()


async def test_a_content_comes_whole_and_each_chunk_once(rig: Rig) -> None:
    assert await rig.bring() == CONTENT
    assert sorted(rig.fleet.asked()) == list(range(21))
    assert rig.told[-1] == len(CONTENT)
    assert not rig.store.bits(FILE.sha256).exists()
    await asyncio.to_thread(rig.store.adopt, FILE)


async def test_lost_repeated_and_shuffled_chunks_make_the_same_content(rig: Rig) -> None:
    rng, held = random.Random(1), [b""]

    def fate(want: ChunkWant, index: int) -> list[bytes]:
        answer = rig.fleet.chunk(want, index)
        choice = rng.random()
        if choice < 0.2:
            return []
        if choice < 0.4:
            return [answer, answer]
        before, held[0] = held[0], answer
        return [before] if before else []

    rig.line = rig.new_line(PATIENT)
    rig.fleet.fate = fate
    assert await rig.bring() == CONTENT
    assert len(rig.fleet.asked()) > 21


async def test_nothing_is_taken_that_was_not_asked_for_or_that_the_fleet_has_not_signed(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    stranger, other = signatures.generate(), os.urandom(CHUNK_BYTES)

    def fate(want: ChunkWant, index: int) -> list[bytes]:
        elsewhere = ChunkWant(NODE, want.ask, digest_of(other), (index,))
        old = ChunkWant(NODE, want.ask ^ 1, want.content, (index,))
        signed = decode(rig.fleet.chunk(want, index), Signed)
        altered = Signed(signed.payload, signed.key_id, signed.signature, {digest_of(other): other})
        swapped = Signed(signed.payload, signed.key_id, signed.signature, dict.fromkeys(signed.attachments, other))
        return [
            rig.fleet.chunk(want, index, private=stranger, data=other),
            rig.fleet.chunk(elsewhere, index, data=other),
            rig.fleet.chunk(old, index, data=other),
            rig.fleet.chunk(want, index, data=b"short"),
            rig.fleet.chunk(want, index + 100, data=other),
            encode(altered),
            encode(swapped),
            b"nonsense",
            b"\x00" * (MAX_CHUNK_MESSAGE_BYTES * 2),
            rig.fleet.chunk(want, index),
        ]

    rig.fleet.fate = fate
    assert await rig.bring() == CONTENT
    assert rig.line.heard["taken"] == 21
    for outcome in ("unasked", "unsigned", "unreadable"):
        assert rig.line.heard[outcome] >= 21
    assert caplog.text.count("others like it will be dropped") == 2


async def test_a_flood_of_unasked_chunks_holds_up_nothing(rig: Rig) -> None:
    flood = rig.fleet.chunk(ChunkWant(NODE, 1, FILE.sha256, (0,)), 0)
    rig.fleet.fate = lambda want, index: [*[flood] * 20, rig.fleet.chunk(want, index)]
    assert await rig.bring() == CONTENT
    assert (rig.line.heard["taken"], rig.line.heard["unasked"] >= 300) == (21, True)


async def test_what_breaks_off_goes_on_where_it_was(rig: Rig) -> None:
    rig.line = rig.new_line(QUICK)
    rig.fleet.fate = lambda want, index: [rig.fleet.chunk(want, index)] if index % 2 else []
    with pytest.raises(FoothillError, match="no chunk for") as refused:
        await rig.bring()
    assert (refused.value.code, refused.value.retryable) == ("unavailable", True)
    assert rig.store.bits(FILE.sha256).exists()
    rig.fleet.wants.clear()
    rig.fleet.fate = lambda want, index: [rig.fleet.chunk(want, index)]
    rig.line = rig.new_line(PATIENT)
    rig.store = BundleStore(rig.store.partial("sha256:" + "0" * 64).parents[1], reserve_bytes=0)
    await asyncio.to_thread(rig.store.sweep)
    assert await rig.bring() == CONTENT
    assert all(index % 2 == 0 for index in rig.fleet.asked()), "what had come is not asked for again"


async def test_chunks_go_on_from_the_beginning_that_another_way_has_left(rig: Rig) -> None:
    rig.store.partial(FILE.sha256).write_bytes(CONTENT[: 5 * CHUNK_BYTES + 77])
    assert await rig.bring() == CONTENT
    assert sorted(rig.fleet.asked()) == list(range(5, 21))


async def test_a_content_that_the_fleet_does_not_give_is_told_at_once(rig: Rig) -> None:
    def fate(want: ChunkWant, index: int) -> list[bytes]:
        refused = Chunk(want.ask, want.content, 0, 0, error="it is not assigned to this node")
        return [encode(signatures.sign(refused, rig.fleet.private))]

    rig.fleet.fate = fate
    with pytest.raises(FoothillError, match="not assigned") as refused:
        await rig.bring()
    assert refused.value.code == "not_found"


async def test_an_empty_content_asks_nobody(rig: Rig) -> None:
    assert await rig.bring(File(digest_of(b""), 0)) == b""
    assert rig.fleet.wants == []


async def test_two_contents_share_one_connection(rig: Rig) -> None:
    async def again(content: bytes) -> None:
        await rig.bring(File(digest_of(content), len(content)))

    one, two = CONTENT, CONTENT[:-1]
    whole = {digest_of(one): one, digest_of(two): two}

    def fate(want: ChunkWant, index: int) -> list[bytes]:
        content = whole[want.content]
        data = content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        chunk = Chunk(want.ask, want.content, index, len(content), digest_of(data))
        return [encode(signatures.sign(chunk, rig.fleet.private, {chunk.data: data}))]

    rig.fleet.fate = fate
    await asyncio.gather(again(one), again(two))
    for digest, content in whole.items():
        assert rig.store.partial(digest).read_bytes() == content


async def test_a_broker_that_restarts_in_the_middle_costs_no_content(rig: Rig) -> None:
    restarted = False

    def fate(want: ChunkWant, index: int) -> list[bytes]:
        nonlocal restarted
        if index == 10 and not restarted:
            restarted = True
            restarting.append(asyncio.ensure_future(_restart(rig.broker)))
        return [rig.fleet.chunk(want, index)]

    restarting: list[asyncio.Future[None]] = []
    rig.line = rig.new_line(PATIENT)
    rig.fleet.fate = fate
    assert await rig.bring() == CONTENT
    await restarting[0]


async def test_without_a_broker_it_says_so_soon(rig: Rig) -> None:
    rig.line = rig.new_line(Terms(connect_s=0.2), url="mqtt://127.0.0.1:9")
    with pytest.raises(FoothillError, match="No MQTT broker answered") as refused:
        await rig.bring()
    assert refused.value.retryable
    assert size_of(rig.store.partial(FILE.sha256)) == 0


async def test_metadata_by_an_unknown_key_is_taken_only_where_no_known_one_speaks(rig: Rig) -> None:
    """A replaced control key is learnt from the very metadata that it has signed."""
    stranger = signatures.generate()
    name, data = "metadata/timestamp.json", b"{}"

    def piece(want: ChunkWant, private: bytes) -> bytes:
        chunk = Chunk(want.ask, want.content, 0, len(data), digest_of(data))
        return encode(signatures.sign(chunk, private, {chunk.data: data}))

    async def fetch(line: ChunkLine) -> bytes:
        async with line.opened():
            pull = line.pull(name, [0], None, lenient=True)
            try:
                ((_, got),) = await pull.next()
                return got
            finally:
                pull.close()

    rig.fleet.fate = lambda want, _: [piece(want, stranger)]
    with pytest.raises(FoothillError, match="no chunk for"):
        await fetch(rig.new_line(QUICK))
    assert await fetch(rig.new_line(Terms(give_up_s=30.0))) == data, "after it has waited for a known one"


async def _restart(broker: Broker) -> None:
    await broker.stop()
    await broker.start()
