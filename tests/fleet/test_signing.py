"""The signed metadata, read by the reference client and by our own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

import fleet.signing
from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.manifest import Manifest
from contracts.messages import Desired
from contracts.targets import CONTROL_KEYS, bundle_path
from fleet.keys import KeyFiles
from fleet.signing import Lifetimes, Signing
from runtime.links.process.settings import SettingsError
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from tests.fleet.scripted import write_bundle

DAY_S = 86_400.0


class DiskFetcher(FetcherInterface):
    """Serves http://fleet/tuf/... from the repository's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._directory / urlsplit(url).path.removeprefix("/tuf/")
        if not path.is_file():
            raise DownloadHTTPError(f"no {path}", 404)
        return iter([path.read_bytes()])


class Repository:
    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.now_s = time.time()
        self.directory = tmp_path / "tuf"
        self.clients = 0

    def open(self) -> Signing:
        return Signing(self.directory, KeyFiles(self.tmp_path / "keys"), Lifetimes(), lambda: self.now_s)

    def client(self, root: bytes) -> Updater:
        self.clients += 1
        state = self.tmp_path / f"client-{self.clients}"
        state.mkdir()
        return Updater(
            metadata_dir=str(state),
            metadata_base_url="http://fleet/tuf/metadata/",
            target_dir=str(state),
            target_base_url="http://fleet/tuf/targets/",
            fetcher=DiskFetcher(self.directory),
            config=UpdaterConfig(),
            bootstrap=root,
        )

    def trusted(self, root: bytes) -> TrustedFleet:
        self.clients += 1
        state = self.tmp_path / f"client-{self.clients}"
        return TrustedFleet(state, "http://fleet", root, fetcher=DiskFetcher(self.directory))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def bundle(tmp_path: Path, version: str, model: str = "digits") -> tuple[Manifest, bytes, str]:
    write_bundle(tmp_path / f"{model}-{version}", version)
    read = manifests.decode((tmp_path / f"{model}-{version}" / manifests.FILE).read_bytes())
    manifest = msgspec.structs.replace(read, model=model, name=f"{model}-edge")
    return manifest, manifests.encode(manifest), manifests.digest(manifest)


def test_the_reference_client_finds_keys_and_bundles(repository: Repository, tmp_path: Path) -> None:
    signing = repository.open()
    manifest, data, digest = bundle(tmp_path, "1")
    signing.add_bundle(manifest, data, digest)
    client = repository.client(signing.root)
    client.refresh()
    assert client.get_targetinfo(CONTROL_KEYS) is not None
    found = client.get_targetinfo(bundle_path("digits", digest))
    assert found is not None
    assert found.custom == {"name": "digits-edge", "version": "1", "tier": "edge"}
    assert Path(client.download_target(found)).read_bytes() == data
    assert client.get_targetinfo(bundle_path("faces", digest)) is None


def test_our_own_client_resolves_verifies_and_checks_documents(repository: Repository, tmp_path: Path) -> None:
    signing = repository.open()
    digests = {}
    for version in ("1", "2"):
        manifest, data, digest = bundle(tmp_path, version)
        signing.add_bundle(manifest, data, digest)
        digests[version] = (digest, data)
    trusted = repository.trusted(signing.root)
    assert trusted.resolve("digits", "digits-edge@2") == digests["2"][0]
    assert trusted.manifest("digits", digests["1"][0], None) == digests["1"][1]
    assert trusted.manifest("digits", digests["1"][0], b"forged") == digests["1"][1]
    desired = Desired("a", 1, 0.0, 1.0, {"digits": digests["1"][0]})
    signed = signing.sign(desired)
    assert signatures.verify(signed, trusted.keys("desired"), Desired) == desired
    with pytest.raises(FoothillError, match="allow"):
        signatures.verify(signatures.sign(desired, signatures.generate()), trusted.keys("desired"), Desired)


def test_each_model_has_a_role_and_a_key_of_its_own(repository: Repository, tmp_path: Path) -> None:
    signing = repository.open()
    for model in ("digits", "faces"):
        signing.add_bundle(*bundle(tmp_path, "1", model))
    client = repository.client(signing.root)
    for model in ("digits", "faces"):
        assert client.get_targetinfo(bundle_path(model, bundle(tmp_path, "1", model)[2])) is not None
    keys = {path.name for path in (tmp_path / "keys").iterdir()}
    assert {"model-digits.key", "model-faces.key", "root.key", "control.key"} <= keys
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").iterdir())


def test_a_restart_goes_on_with_the_same_root_and_higher_versions(repository: Repository, tmp_path: Path) -> None:
    first = repository.open()
    root = first.root
    first.add_bundle(*bundle(tmp_path, "1"))
    known = repository.client(root)
    known.refresh()
    second = repository.open()
    assert second.root == root
    second.add_bundle(*bundle(tmp_path, "2"))
    second.add_bundle(*bundle(tmp_path, "1"))  # again: nothing changes
    client = repository.client(root)
    for version in ("1", "2"):
        assert client.get_targetinfo(bundle_path("digits", bundle(tmp_path, version)[2])) is not None


def test_uses_that_an_older_program_did_not_publish_are_published_at_start(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.signing, "USES", ("desired", "identity"))
    older = repository.open()
    trusted = repository.trusted(older.root)
    assert trusted.keys("certificate") == {}
    monkeypatch.undo()
    newer = repository.open()
    assert newer.root == older.root
    trusted.refresh()
    assert trusted.keys("certificate") == trusted.keys("desired") == trusted.keys("identity") != {}
    versions = sorted(repository.directory.glob("metadata/*.targets.json"))
    repository.open()
    assert sorted(repository.directory.glob("metadata/*.targets.json")) == versions


def test_what_a_crash_left_unpublished_is_overwritten(repository: Repository, tmp_path: Path) -> None:
    signing = repository.open()
    signing.add_bundle(*bundle(tmp_path, "1"))
    before = (repository.directory / "metadata" / "timestamp.json").read_bytes()
    signing.add_bundle(*bundle(tmp_path, "2"))
    (repository.directory / "metadata" / "timestamp.json").write_bytes(before)  # died just before the last rename
    again = repository.open()
    again.add_bundle(*bundle(tmp_path, "3"))
    client = repository.client(again.root)
    assert client.get_targetinfo(bundle_path("digits", bundle(tmp_path, "3")[2])) is not None
    assert client.get_targetinfo(bundle_path("digits", bundle(tmp_path, "2")[2])) is None


def test_metadata_is_renewed_for_ever_before_it_expires(repository: Repository, tmp_path: Path) -> None:
    today_s = repository.now_s
    repository.now_s -= 400 * DAY_S
    signing = repository.open()
    signing.add_bundle(*bundle(tmp_path, "1"))
    root = signing.root
    while repository.now_s < today_s - DAY_S / 2:
        repository.now_s += DAY_S / 2
        signing.renew()
        timestamp = Metadata.from_file(str(repository.directory / "metadata" / "timestamp.json")).signed
        assert timestamp.expires.timestamp() > repository.now_s + DAY_S / 4
    repository.now_s = today_s
    signing.renew()
    client = repository.client(root)  # a node that slept all the time follows the chain of roots
    assert client.get_targetinfo(bundle_path("digits", bundle(tmp_path, "1")[2])) is not None
    assert Metadata[Root].from_bytes(signing.root).signed.version >= 3


def test_a_fleet_that_slept_renews_when_it_starts(repository: Repository, tmp_path: Path) -> None:
    repository.now_s -= 400 * DAY_S
    signing = repository.open()
    signing.add_bundle(*bundle(tmp_path, "1"))
    with pytest.raises(ExpiredMetadataError):
        repository.client(signing.root).refresh()
    repository.now_s += 400 * DAY_S
    repository.open()
    repository.client(signing.root).refresh()


def test_a_failed_write_leaves_the_published_state_and_the_next_try_works(
    repository: Repository, tmp_path: Path
) -> None:
    signing = repository.open()
    in_the_way = repository.directory / "metadata" / "2.snapshot.json"
    in_the_way.mkdir()
    with pytest.raises(OSError, match="snapshot"):
        signing.add_bundle(*bundle(tmp_path, "1"))
    repository.client(signing.root).refresh()
    in_the_way.rmdir()
    signing.add_bundle(*bundle(tmp_path, "1"))
    client = repository.client(signing.root)
    assert client.get_targetinfo(bundle_path("digits", bundle(tmp_path, "1")[2])) is not None


def test_keys_of_routers_sign_tickets_and_nothing_else(repository: Repository, tmp_path: Path) -> None:
    """`ticket.key` is made here; a router may have a key of its own beside it, until that is taken away again."""
    trusted = repository.trusted(repository.open().root)
    own, other = tmp_path / "keys" / "ticket.key", tmp_path / "keys" / "ticket-eu.key"
    assert own.stat().st_mode & 0o077 == 0
    public = signatures.public_key(bytes.fromhex(own.read_text()))
    other.write_text("ab" * 32)
    repository.open()
    trusted.refresh()
    keys = trusted.keys("ticket")
    assert set(keys.values()) == {public, signatures.public_key(b"\xab" * 32)}
    assert not set(keys) & set(trusted.keys("desired"))
    other.unlink()
    repository.open()
    trusted.refresh()
    assert set(trusted.keys("ticket").values()) == {public}


@pytest.mark.parametrize("text", ["", "hello", "ab" * 31])
def test_a_ticket_key_that_is_none_is_named(repository: Repository, tmp_path: Path, text: str) -> None:
    repository.open()
    (tmp_path / "keys" / "ticket-eu.key").write_text(text)
    with pytest.raises(SettingsError, match=r"ticket-eu\.key.*openssl"):
        repository.open()
