"""HTTP first, chunks where nobody answers there, each going on from what the other has left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from contracts.errors import FoothillError
from contracts.manifest import File, digest_of
from contracts.messages import CHUNK_BYTES
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import Way, Ways
from runtime.links.bundles.store import BundleStore, size_of
from runtime.links.bundles.two_ways import Reach, TwoFetchers, two_ways
from runtime.links.chunks.file import ChunkFile, leave_prefix
from runtime.links.trust.tuf import FleetUnreachable, HttpFetcher
from tests.runtime.links.fleet_server import FleetServer

CONTENT = os.urandom(5 * CHUNK_BYTES + 99)
FILE = File(digest_of(CONTENT), len(CONTENT))
NOWHERE = "http://127.0.0.1:9"
NO_RETRY: tuple[float, ...] = ()


class Chunks:
    """Chunks from memory, in the order of `order`; which of them were asked for."""

    def __init__(self, order: Callable[[list[int]], list[int]] = list) -> None:
        self.asked: list[int] = []
        self.opened = 0
        self._order = order

    @asynccontextmanager
    async def ways(self) -> AsyncIterator[Way]:
        self.opened += 1
        yield self

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        chunks = ChunkFile(store, file)
        try:
            for index in self._order(list(chunks.bits.missing())):
                self.asked.append(index)
                chunks.put([(index, CONTENT[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])])
            if chunks.bits.complete:
                chunks.finish()
        finally:
            chunks.close()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store", reserve_bytes=0, sync_bytes=CHUNK_BYTES)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FleetServer]:
    server = FleetServer(tmp_path / "repository")
    server.add_blob(CONTENT)
    yield server
    await server.stop()


async def bring(ways: Ways, store: BundleStore) -> bytes:
    async with ways() as way:
        await way.bring(store, FILE, lambda _: None)
    return store.partial(FILE.sha256).read_bytes()


async def test_where_the_registry_answers_nothing_comes_in_chunks(store: BundleStore, server: FleetServer) -> None:
    chunks = Chunks()
    ways = two_ways(http_ways(await server.start()), chunks.ways, Reach())
    assert await bring(ways, store) == CONTENT
    assert (chunks.opened, chunks.asked) == (0, [])


async def test_where_nobody_answers_chunks_come_at_once_and_http_is_asked_again_later(
    store: BundleStore, server: FleetServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock, chunks = Clock(), Chunks()
    reach = Reach(clock)
    away = two_ways(http_ways(NOWHERE, retry_delays_s=NO_RETRY), chunks.ways, reach)
    for _ in range(2):
        assert await bring(away, store) == CONTENT
        store.disk.unlink(store.partial(FILE.sha256))
    assert not reach.open
    here = two_ways(http_ways(await server.start()), chunks.ways, reach)
    await bring(here, store)
    assert server.asked == [], "not yet"
    store.disk.unlink(store.partial(FILE.sha256))
    clock.now_s += 601.0
    await bring(here, store)
    assert [digest for digest, _ in server.asked] == [FILE.sha256]
    assert caplog.text.count("going on over MQTT") == 1
    assert "can be reached again" in caplog.text


async def test_chunks_go_on_from_what_a_broken_transfer_has_left(store: BundleStore, server: FleetServer) -> None:
    url = await server.start()
    server.cut_after[FILE.sha256].append(2 * CHUNK_BYTES + 5)
    with pytest.raises(FoothillError):
        await bring(http_ways(url, retry_delays_s=NO_RETRY), store)
    chunks, whole = Chunks(), size_of(store.partial(FILE.sha256)) // CHUNK_BYTES
    assert await bring(two_ways(http_ways(NOWHERE, retry_delays_s=NO_RETRY), chunks.ways, Reach()), store) == CONTENT
    assert chunks.asked == list(range(whole, 6))


async def test_http_goes_on_behind_the_last_chunk_without_a_gap(store: BundleStore, server: FleetServer) -> None:
    some = Chunks(lambda missing: [0, 1, 5, 3])
    await bring(some.ways, store)
    assert store.bits(FILE.sha256).exists()
    assert await bring(http_ways(await server.start()), store) == CONTENT
    assert server.asked == [(FILE.sha256, f"bytes={2 * CHUNK_BYTES}-")]
    assert not store.bits(FILE.sha256).exists()


async def test_a_registry_that_answers_with_an_error_is_no_reason_to_go_another_way(
    store: BundleStore, server: FleetServer
) -> None:
    server.status[FILE.sha256].extend([503, 404])
    chunks = Chunks()
    ways = two_ways(http_ways(await server.start(), retry_delays_s=NO_RETRY), chunks.ways, Reach())
    for code in ("unavailable", "not_found"):
        with pytest.raises(FoothillError) as refused:
            await bring(ways, store)
        assert refused.value.code == code
    assert chunks.opened == 0


def test_nothing_is_left_of_chunks_that_do_not_begin_at_the_beginning(store: BundleStore) -> None:
    chunks = ChunkFile(store, FILE)
    chunks.put([(4, CONTENT[4 * CHUNK_BYTES : 5 * CHUNK_BYTES])])
    chunks.close()
    leave_prefix(store, FILE)
    assert not store.partial(FILE.sha256).exists()
    leave_prefix(store, FILE)


@pytest.mark.parametrize("bits", [b"", b"nonsense", None])
def test_bits_that_cannot_be_read_or_are_of_another_content_are_none(store: BundleStore, bits: bytes | None) -> None:
    other = ChunkFile(store, File(FILE.sha256, FILE.bytes - CHUNK_BYTES))
    other.put([(1, CONTENT[CHUNK_BYTES : 2 * CHUNK_BYTES])])
    other.close()
    if bits is not None:
        store.bits(FILE.sha256).write_bytes(bits)
    chunks = ChunkFile(store, FILE)
    assert len(list(chunks.bits.missing())) >= 4
    chunks.close()


def test_a_sweep_keeps_chunks_with_their_bits_and_nothing_else(store: BundleStore) -> None:
    chunks = ChunkFile(store, FILE)
    chunks.put([(3, CONTENT[3 * CHUNK_BYTES : 4 * CHUNK_BYTES])])
    chunks.close()
    lost, half = store.bits("sha256:" + "0" * 64), store.bits(FILE.sha256).with_suffix(".bits.new")
    for leftover in (lost, half):
        leftover.write_bytes(b"x")
    store.sweep()
    assert not lost.exists()
    assert not half.exists()
    again = ChunkFile(store, FILE)
    assert 3 in again.bits
    again.close()


class Scripted(FetcherInterface):
    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.asked = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return iter([self.answer])


def test_metadata_goes_the_other_way_only_where_nobody_answers() -> None:
    http, chunks, clock = Scripted(b"http"), Scripted(b"chunks"), Clock()
    fetchers = TwoFetchers(http, chunks, Reach(clock))
    assert b"".join(fetchers.fetch("x")) == b"http"
    for answered in (DownloadHTTPError("no", 404), DownloadError("certificate verify failed")):
        http.answer = answered
        with pytest.raises(DownloadError):
            list(fetchers.fetch("x"))
    assert chunks.asked == 0
    http.answer = FleetUnreachable("refused")
    assert b"".join(fetchers.fetch("x")) == b"".join(fetchers.fetch("x")) == b"chunks"
    assert http.asked == 4, "not asked again so soon"


def test_a_closed_port_is_nobody() -> None:
    with pytest.raises(FleetUnreachable):
        list(HttpFetcher(timeout_s=1.0).fetch(f"{NOWHERE}/tuf/metadata/timestamp.json"))
