"""The store: only whole, checked bundles show, and contents live as long as any bundle uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.manifest import FILE, decode, digest_of
from runtime.links.bundles.store import BundleStore
from tests.edge_node.bundle_factory import MODEL_FILE, contents_of, pack, plain_manifest


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store", reserve_bytes=0)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_packed_directory_is_imported(store: BundleStore, packed: Path) -> None:
    digest = digest_of((packed / FILE).read_bytes())
    assert store.add_directory(packed) == digest
    assert store.add_directory(packed) == digest
    store.verify(digest)


def test_a_packed_directory_that_does_not_match_its_manifest_is_refused(store: BundleStore, packed: Path) -> None:
    (packed / MODEL_FILE).write_bytes(b"other")
    with pytest.raises(FoothillError, match="Pack it again"):
        store.add_directory(packed)
    assert store.digests() == []


def test_removing_keeps_what_another_bundle_uses(store: BundleStore, packed: Path, tmp_path: Path) -> None:
    one = store.add_directory(packed)
    pack(tmp_path / "other", version="7")
    other = store.add_directory(tmp_path / "other")
    store.remove(one)
    store.remove(one)
    assert not store.has(one)
    store.verify(other)
    store.remove(other)
    assert list((tmp_path / "store" / "blobs" / "sha256").iterdir()) == []


def test_removing_spares_contents_of_a_bundle_on_its_way(store: BundleStore, packed: Path) -> None:
    digest = store.add_directory(packed)
    coming, contents = decode(plain_manifest(version="6")), {digest_of(data): data for data in contents_of("6")}
    missing = store.missing(coming)
    with store.pinned(digest_of(plain_manifest(version="6")), coming):
        for file in missing:
            store.partial(file.sha256).write_bytes(contents[file.sha256])
            store.adopt(file)
        store.remove(digest)
        assert store.missing(coming) == []
    assert missing


@pytest.mark.parametrize("name", [FILE, MODEL_FILE])
def test_a_change_on_disk_is_found(store: BundleStore, packed: Path, name: str) -> None:
    digest = store.add_directory(packed)
    path = store.path(digest) / name
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"!")
    with pytest.raises(FoothillError, match=f"File {name}"):
        store.verify(digest)


def test_half_a_bundle_never_shows(store: BundleStore, tmp_path: Path) -> None:
    leftover = tmp_path / "store" / "building" / "abc"
    leftover.mkdir()
    (leftover / FILE).write_bytes(plain_manifest())
    assert store.digests() == []
    store.sweep()
    assert not leftover.exists()


@pytest.mark.parametrize("digest", ["", "sha256:..", "../../etc", "sha256:" + "A" * 64])
def test_only_digests_name_bundles(store: BundleStore, digest: str) -> None:
    with pytest.raises(FoothillError, match="not a digest"):
        store.path(digest)
