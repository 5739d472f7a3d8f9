"""A bundle on its way from a fleet that cuts, lies and goes away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.manifest import FILE, decode, digest_of
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import fetch_bundle
from runtime.links.bundles.store import BundleStore, NoSpace
from runtime.links.process.disk import RealDisk
from runtime.links.trust.tuf import TrustedFleet, TrustError
from tests.edge_node.bundle_factory import contents_of, plain_manifest
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

BIG = os.urandom(300_000)
BIG_FILE = {"extra/big.bin": BIG}
SYNC_BYTES = 30_001
NO_WAITING = (0.0, 0.0, 0.0)


class Small(RealDisk):
    """`free` are the answers to come; the last one stays."""

    def __init__(self) -> None:
        self.free = [300_000]

    def free_bytes(self, path: Path) -> int:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0]


class Fleet:
    """One published bundle with one big file, a store, and the way between them."""

    def __init__(self, directory: Path) -> None:
        self.repository = TufRepository(directory / "repository")
        self.server = FleetServer(self.repository.directory)
        self.store = BundleStore(directory / "store", reserve_bytes=0, sync_bytes=SYNC_BYTES)
        self.manifest = plain_manifest(files=BIG_FILE)
        self.directory = directory
        self.url = ""

    async def start(self) -> None:
        self.repository.set_keys({"aa" * 32: ["desired"]})
        self.digest = self.publish(self.manifest, contents_of(files=BIG_FILE))
        self.big = digest_of(BIG)
        self.url = await self.server.start()
        self.trust = TrustedFleet(self.directory / "trust", self.url, self.repository.root_bytes)

    def publish(self, manifest: bytes, contents: list[bytes]) -> str:
        for data in contents:
            self.server.add_blob(data)
        digest = self.repository.add_bundle(manifest)
        self.repository.publish()
        return digest

    async def fetch(self, digest: str = "", *, store: BundleStore | None = None) -> Path:
        return await fetch_bundle(
            store or self.store,
            self.trust,
            http_ways(self.url, retry_delays_s=NO_WAITING),
            "digits",
            digest or self.digest,
            None,
        )

    def ranges_of_big(self) -> list[str]:
        return [wanted for digest, wanted in self.server.asked if digest == self.big]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    await fleet.start()
    yield fleet
    await fleet.server.stop()


async def test_a_fetched_bundle_has_every_file_under_its_own_name(fleet: Fleet) -> None:
    path = await fleet.fetch()
    assert (path / FILE).read_bytes() == fleet.manifest
    assert (path / "extra" / "big.bin").read_bytes() == BIG
    assert fleet.store.verify(fleet.digest) == decode(fleet.manifest) == fleet.store.manifest(fleet.digest)
    assert fleet.store.digests() == [fleet.digest]


async def test_progress_is_told_up_to_the_last_byte(fleet: Fleet) -> None:
    seen: list[tuple[int, int]] = []
    await fetch_bundle(
        fleet.store,
        fleet.trust,
        http_ways(fleet.url),
        "digits",
        fleet.digest,
        None,
        lambda done, total: seen.append((done, total)),
    )
    total = sum(file.bytes for file in decode(fleet.manifest).files.values())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)


async def test_a_second_fetch_asks_for_no_content(fleet: Fleet) -> None:
    await fleet.fetch()
    fleet.server.asked.clear()
    await fleet.fetch()
    assert not [digest for digest, _ in fleet.server.asked if digest.startswith("sha256:")]


async def test_a_broken_connection_is_resumed_where_it_broke(fleet: Fleet) -> None:
    fleet.server.cut_after[fleet.big].extend([100_000, 50_000])
    await fleet.fetch()
    first, *later = fleet.ranges_of_big()
    assert first == ""
    assert len(later) == 2
    starts = [int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in later]
    assert 0 < starts[0] <= 100_000
    assert starts[0] < starts[1] <= 150_000


async def test_what_came_is_kept_over_a_restart_of_the_process(fleet: Fleet) -> None:
    fleet.server.cut_after[fleet.big].extend([100_000, 0, 0, 0, 0])
    with pytest.raises(FoothillError, match="goes on from there") as failed:
        await fleet.fetch()
    assert failed.value.code == "unavailable"
    kept = fleet.store.partial(fleet.big).stat().st_size
    assert kept > 0
    assert not fleet.store.has(fleet.digest)
    restarted = BundleStore(fleet.directory / "store", reserve_bytes=0, sync_bytes=SYNC_BYTES)
    restarted.sweep()
    await fleet.fetch(store=restarted)
    assert kept % SYNC_BYTES
    assert fleet.ranges_of_big()[-1] == f"bytes={kept - kept % SYNC_BYTES}-", "the rest may be torn"
    restarted.verify(fleet.digest)


async def test_a_server_without_ranges_is_asked_from_the_start(fleet: Fleet) -> None:
    fleet.server.ranges = False
    fleet.server.cut_after[fleet.big].append(100_000)
    await fleet.fetch()
    fleet.store.verify(fleet.digest)


async def test_a_partial_file_gone_rotten_costs_one_fresh_transfer(fleet: Fleet) -> None:
    fleet.store.partial(fleet.big).write_bytes(b"\0" * 1000)
    await fleet.fetch()
    assert fleet.ranges_of_big() == ["bytes=1000-", ""]
    fleet.store.verify(fleet.digest)


async def test_a_partial_file_that_is_too_long_is_dropped(fleet: Fleet) -> None:
    fleet.store.partial(fleet.big).write_bytes(BIG + b"more")
    await fleet.fetch()
    fleet.store.verify(fleet.digest)


async def test_wrong_bytes_are_refused_and_not_kept(fleet: Fleet) -> None:
    fleet.server.lies[fleet.big] = b"\0" * len(BIG)
    with pytest.raises(FoothillError, match="not that content") as refused:
        await fleet.fetch()
    assert refused.value.code == "bad_bundle"
    assert not fleet.store.partial(fleet.big).exists()
    assert not fleet.store.has(fleet.digest)


async def test_a_server_that_never_stops_sending_is_cut_off(fleet: Fleet) -> None:
    fleet.server.endless.add(fleet.big)
    with pytest.raises(FoothillError, match="more than the 300000 bytes"):
        await fleet.fetch()
    assert not fleet.store.partial(fleet.big).exists()


async def test_too_few_bytes_are_asked_for_again_but_not_for_ever(fleet: Fleet) -> None:
    fleet.server.lies[fleet.big] = BIG[:1000]
    with pytest.raises(FoothillError) as failed:
        await fleet.fetch()
    assert failed.value.code in ("unavailable", "bad_bundle")
    assert len(fleet.ranges_of_big()) <= 12


async def test_a_fleet_in_trouble_is_asked_again(fleet: Fleet) -> None:
    fleet.server.status[fleet.big].extend([503, 429])
    await fleet.fetch()
    fleet.store.verify(fleet.digest)


async def test_a_missing_content_is_said_at_once(fleet: Fleet) -> None:
    del fleet.server.blobs[fleet.big]
    with pytest.raises(FoothillError, match="published in full") as failed:
        await fleet.fetch()
    assert failed.value.code == "not_found"
    assert len(fleet.ranges_of_big()) == 1


async def test_two_fetches_of_one_bundle_transfer_it_once(fleet: Fleet) -> None:
    paths = await asyncio.gather(*(fleet.fetch() for _ in range(4)))
    assert len(set(paths)) == 1
    assert len(fleet.ranges_of_big()) == 1


async def test_bundles_share_contents(fleet: Fleet) -> None:
    await fleet.fetch()
    other = fleet.publish(plain_manifest(version="6", files=BIG_FILE), contents_of("6", BIG_FILE))
    fleet.server.asked.clear()
    await fleet.fetch(other)
    assert fleet.ranges_of_big() == []


async def test_a_file_that_changed_on_the_server_comes_from_its_start(fleet: Fleet) -> None:
    """RFC 9110, 13.1.5: what is at hand is of another file by its ETag, so the server sends all of the new one."""
    fleet.server.etags[fleet.big] = ['"old"', '"new"', '"new"']
    fleet.server.cut_after[fleet.big].extend([100_000, 150_000])
    await fleet.fetch()
    first, second, third = fleet.ranges_of_big()
    assert (first, second[:6], third[:6]) == ("", "bytes=", "bytes=")
    assert fleet.server.etags[fleet.big] == []
    fleet.store.verify(fleet.digest)


async def test_a_range_of_a_file_of_another_length_is_not_gone_on_with(fleet: Fleet) -> None:
    fleet.server.total = 299_999
    fleet.server.cut_after[fleet.big].append(100_000)
    await fleet.fetch()
    assert [wanted != "" for wanted in fleet.ranges_of_big()] == [False, True, False]
    fleet.store.verify(fleet.digest)


async def test_a_disk_that_others_fill_meanwhile_stops_the_transfer_at_the_reserve(fleet: Fleet) -> None:
    disk = Small()
    store = BundleStore(fleet.directory / "small", reserve_bytes=1000, sync_bytes=SYNC_BYTES, disk=disk)
    disk.free = [10_000_000, 500]
    with pytest.raises(NoSpace, match="Free some space"):
        await fleet.fetch(store=store)
    assert store.partial(fleet.big).stat().st_size > 0, "what came stays"
    disk.free = [10_000_000]
    await fleet.fetch(store=store)
    store.verify(fleet.digest)


async def test_two_bundles_at_once_do_not_count_on_the_same_room(fleet: Fleet) -> None:
    store = BundleStore(fleet.directory / "small", reserve_bytes=0, disk=Small())
    first, second = decode(fleet.manifest), decode(plain_manifest(version="7", files={"extra/other.bin": BIG[:-1]}))
    small = decode(plain_manifest(version="8"))
    disk = store.disk
    assert isinstance(disk, Small)
    disk.free = [400_000]
    with store.room_for(first):
        with pytest.raises(NoSpace, match="promised"), store.room_for(second):
            pass
        with store.room_for(small):
            pass
    with store.room_for(second):
        pass


async def test_a_full_disk_is_noticed_before_the_transfer(fleet: Fleet) -> None:
    small = BundleStore(fleet.directory / "small", reserve_bytes=1000, disk=Small())
    with pytest.raises(FoothillError, match="Free some space"):
        await fleet.fetch(store=small)
    assert fleet.ranges_of_big() == []


async def test_an_unsigned_bundle_is_never_fetched(fleet: Fleet) -> None:
    with pytest.raises(TrustError):
        await fleet.fetch(digest_of(plain_manifest(version="9")))


async def test_a_bundle_of_another_model_is_refused(fleet: Fleet) -> None:
    faces = plain_manifest(model="faces")
    digest = fleet.repository.add_bundle(faces, model="digits")
    fleet.repository.publish()
    with pytest.raises(FoothillError, match="serves model faces"):
        await fleet.fetch(digest)
