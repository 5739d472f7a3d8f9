from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.manifest import digest_of
from contracts.targets import CONTROL_KEYS
from runtime.links.trust.signatures import key_id
from runtime.links.trust.tuf import HttpFetcher, TrustedFleet, TrustError, TrustUnavailable
from tests.edge_node.bundle_factory import plain_manifest
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

KEY_A, KEY_B = "aa" * 32, "bb" * 32
AWAY = "http://127.0.0.1:9"


class Fleet:
    """A repository, the server in front of it, and clients of it."""

    def __init__(self, directory: Path) -> None:
        self.repository = TufRepository(directory / "repository")
        self.server = FleetServer(self.repository.directory)
        self.directory = directory
        self.url = ""

    def client(self, name: str = "node", *, away: bool = False) -> TrustedFleet:
        fetcher = HttpFetcher(timeout_s=2.0)
        url = AWAY if away else self.url
        return TrustedFleet(self.directory / name, url, self.repository.root_bytes, fetcher=fetcher)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    fleet.repository.set_keys({KEY_A: ["desired"], KEY_B: ["desired", "identity"]})
    fleet.repository.publish()
    fleet.url = await fleet.server.start()
    yield fleet
    await fleet.server.stop()


async def test_keys_are_told_by_use(fleet: Fleet) -> None:
    client = fleet.client()
    assert await asyncio.to_thread(client.keys, "desired") == {key_id(KEY_A): KEY_A, key_id(KEY_B): KEY_B}
    assert await asyncio.to_thread(client.keys, "identity") == {key_id(KEY_B): KEY_B}


async def test_keys_are_kept_for_the_time_when_the_fleet_is_away(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.client().refresh)
    assert await asyncio.to_thread(fleet.client(away=True).keys, "identity") == {key_id(KEY_B): KEY_B}


async def test_without_a_first_success_nothing_is_believed(fleet: Fleet) -> None:
    with pytest.raises(TrustUnavailable, match="Is the fleet manager running"):
        await asyncio.to_thread(fleet.client(away=True).keys, "desired")


async def test_a_refresh_brings_new_keys(fleet: Fleet) -> None:
    client = fleet.client()
    await asyncio.to_thread(client.refresh)
    fleet.repository.set_keys({KEY_B: ["desired"]})
    fleet.repository.publish()
    await asyncio.to_thread(client.refresh)
    assert await asyncio.to_thread(client.keys, "desired") == {key_id(KEY_B): KEY_B}


async def test_a_signed_manifest_is_downloaded_and_kept(fleet: Fleet) -> None:
    manifest = plain_manifest()
    digest = fleet.repository.add_bundle(manifest)
    fleet.repository.publish()
    assert await asyncio.to_thread(fleet.client().manifest, "digits", digest, None) == manifest
    assert await asyncio.to_thread(fleet.client(away=True).manifest, "digits", digest, None) == manifest


async def test_a_candidate_that_is_the_signed_one_spares_the_download(fleet: Fleet) -> None:
    manifest = plain_manifest()
    digest = fleet.repository.add_bundle(manifest)
    fleet.repository.publish()
    assert await asyncio.to_thread(fleet.client().manifest, "digits", digest, manifest) == manifest
    assert not [path for path, _ in fleet.server.asked if "/targets/bundles" in path]


async def test_a_candidate_that_is_not_the_signed_one_is_never_returned(fleet: Fleet) -> None:
    manifest, other = plain_manifest(), plain_manifest(version="6")
    digest = fleet.repository.add_bundle(manifest)
    fleet.repository.publish()
    assert await asyncio.to_thread(fleet.client().manifest, "digits", digest, other) == manifest


async def test_a_bundle_published_after_the_last_refresh_is_found(fleet: Fleet) -> None:
    client = fleet.client()
    await asyncio.to_thread(client.refresh)
    manifest = plain_manifest()
    digest = fleet.repository.add_bundle(manifest)
    fleet.repository.publish()
    assert await asyncio.to_thread(client.manifest, "digits", digest, None) == manifest


async def test_an_unsigned_bundle_is_refused_even_with_its_manifest_at_hand(fleet: Fleet) -> None:
    manifest = plain_manifest()
    with pytest.raises(TrustError, match="has not signed"):
        await asyncio.to_thread(fleet.client().manifest, "digits", digest_of(manifest), manifest)


async def test_off_line_an_unknown_manifest_stays_unknown(fleet: Fleet) -> None:
    manifest = plain_manifest()
    digest = fleet.repository.add_bundle(manifest)
    fleet.repository.publish()
    await asyncio.to_thread(fleet.client().refresh)
    with pytest.raises(TrustUnavailable):
        await asyncio.to_thread(fleet.client(away=True).manifest, "digits", digest, manifest)


async def test_a_bundle_signed_for_one_model_is_none_of_another(fleet: Fleet) -> None:
    digest = fleet.repository.add_bundle(plain_manifest())
    fleet.repository.publish()
    with pytest.raises(TrustError):
        await asyncio.to_thread(fleet.client().manifest, "faces", digest, None)


async def test_a_target_altered_on_its_way_is_refused(fleet: Fleet) -> None:
    digest = fleet.repository.add_bundle(plain_manifest())
    fleet.repository.publish()
    for stored in (fleet.repository.directory / "targets" / "bundles" / "digits").iterdir():
        stored.write_bytes(plain_manifest(version="6"))
    with pytest.raises(TrustError):
        await asyncio.to_thread(fleet.client().manifest, "digits", digest, None)


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
async def test_altered_metadata_is_refused(fleet: Fleet, name: str) -> None:
    path = fleet.repository.metadata(name)
    document = json.loads(path.read_bytes())
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(document))
    with pytest.raises(TrustError, match="refused"):
        await asyncio.to_thread(fleet.client().refresh)


async def test_a_rolled_back_repository_is_refused_and_the_kept_keys_go_on(fleet: Fleet) -> None:
    old = fleet.repository.metadata("timestamp.json").read_bytes()
    client = fleet.client()
    fleet.repository.publish()
    await asyncio.to_thread(client.refresh)
    fleet.repository.metadata("timestamp.json").write_bytes(old)
    with pytest.raises(TrustError):
        await asyncio.to_thread(client.refresh)
    assert await asyncio.to_thread(client.keys, "desired")


async def test_expired_metadata_is_refused(fleet: Fleet) -> None:
    fleet.repository.expires_in = timedelta(seconds=-1)
    fleet.repository.publish()
    with pytest.raises(TrustError, match="expired"):
        await asyncio.to_thread(fleet.client().refresh)


async def test_metadata_of_another_root_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    stranger = TufRepository(tmp_path / "stranger")
    client = TrustedFleet(tmp_path / "node", fleet.url, stranger.root_bytes)
    with pytest.raises(TrustError):
        await asyncio.to_thread(client.refresh)


async def test_a_rotated_root_is_followed(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.client().refresh)
    fleet.repository.rotate_root()
    await asyncio.to_thread(fleet.client().refresh)
    await asyncio.to_thread(fleet.client("new-node").refresh)


async def test_a_fleet_that_signs_no_keys_is_refused(fleet: Fleet) -> None:
    fleet.repository.targets.targets.clear()
    fleet.repository.publish()
    with pytest.raises(TrustError, match=r"keys/control\.json"):
        await asyncio.to_thread(fleet.client().refresh)


@pytest.mark.parametrize("listed", [b"[]", b'{"keys":[{"key_id":"\xff"}]}', b'{"keys":' + b"[" * 100_000])
async def test_signed_keys_that_cannot_be_read_are_refused(fleet: Fleet, listed: bytes) -> None:
    fleet.repository.add_target(fleet.repository.targets, CONTROL_KEYS, listed)
    fleet.repository.publish()
    with pytest.raises(TrustError, match="cannot be read"):
        await asyncio.to_thread(fleet.client().refresh)


async def test_name_and_version_resolve_to_the_signed_digest_also_off_line(fleet: Fleet) -> None:
    digest = fleet.repository.add_bundle(plain_manifest(version="5"))
    fleet.repository.add_bundle(plain_manifest(version="6"))
    fleet.repository.publish()
    assert await asyncio.to_thread(fleet.client().resolve, "digits", "digits-edge@5") == digest
    assert await asyncio.to_thread(fleet.client(away=True).resolve, "digits", "digits-edge@5") == digest
    with pytest.raises(TrustError, match="lists 0 bundles"):
        await asyncio.to_thread(fleet.client().resolve, "digits", "digits-edge@7")


async def test_targets_without_proper_facts_are_passed_over(fleet: Fleet) -> None:
    fleet.repository.add_bundle(plain_manifest(version="5"), custom={"name": 5})
    fleet.repository.publish()
    with pytest.raises(TrustError, match="lists 0 bundles"):
        await asyncio.to_thread(fleet.client().resolve, "digits", "digits-edge@5")


@pytest.mark.parametrize(("model", "digest"), [("../x", "sha256:" + "0" * 64), ("digits", "sha256:../../etc/passwd")])
async def test_names_that_would_leave_the_directory_are_refused(fleet: Fleet, model: str, digest: str) -> None:
    with pytest.raises(FoothillError) as refused:
        await asyncio.to_thread(fleet.client().manifest, model, digest, None)
    assert refused.value.code == "bad_request"


async def test_a_missing_repository_counts_as_away(fleet: Fleet) -> None:
    fleet.repository.metadata("timestamp.json").unlink()
    with pytest.raises(TrustUnavailable, match="404"):
        await asyncio.to_thread(fleet.client().refresh)


async def test_many_threads_may_ask_at_once(fleet: Fleet) -> None:
    digest = fleet.repository.add_bundle(plain_manifest())
    fleet.repository.publish()
    client = fleet.client()
    answers = await asyncio.gather(
        *(asyncio.to_thread(client.manifest, "digits", digest, None) for _ in range(8)),
        *(asyncio.to_thread(client.refresh) for _ in range(4)),
    )
    assert set(answers[:8]) == {plain_manifest()}
