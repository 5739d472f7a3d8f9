"""A content-addressed directory of verified bundles."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.errors import FoothillError
from contracts.manifest import FILE, File, Manifest, decode, digest_of, is_digest
from runtime.links.durable import sync_directory

RESERVE_BYTES = 64 << 20
_READ_BYTES = 1 << 20


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


class BundleStore:
    """`blobs/sha256/<hex>` holds file contents, `bundles/<hex>/` complete bundles of hard links to them.

    A bundle appears under its name by one rename, after every byte of it was checked and synced. One process a
    directory; `reserve_bytes` of the disk are never used.
    """

    def __init__(
        self, root: Path, *, reserve_bytes: int = RESERVE_BYTES, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._bundles = root / "bundles"
        self._partial = root / "partial"
        self._building = root / "building"
        for directory in (self._blobs, self._bundles, self._partial, self._building):
            directory.mkdir(parents=True, exist_ok=True)
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._pinned: Counter[str] = Counter()

    def has(self, digest: str) -> bool:
        return self._bundle(digest).is_dir()

    def path(self, digest: str) -> Path:
        """The directory of a bundle; raises FoothillError `not_found`."""
        path = self._bundle(digest)
        if not path.is_dir():
            raise FoothillError("not_found", f"Bundle {digest} is not in the store. Fetch it first.")
        return path

    def manifest(self, digest: str) -> Manifest:
        return decode((self.path(digest) / FILE).read_bytes())

    def digests(self) -> list[str]:
        """Every complete bundle."""
        return sorted(name for entry in self._bundles.iterdir() if is_digest(name := f"sha256:{entry.name}"))

    def verify(self, digest: str) -> Manifest:
        """Reads every byte of a bundle again; raises FoothillError `bad_bundle` naming the file that changed."""
        directory = self.path(digest)
        data = _read_whole(directory / FILE, digest, FILE)
        if digest_of(data) != digest:
            raise _changed(digest, FILE)
        manifest = decode(data)
        for name, file in manifest.files.items():
            if not _is_content(directory / name, file):
                raise _changed(digest, name)
        return manifest

    def add_directory(self, source: Path) -> str:
        """Imports a packed bundle directory whose signature the caller vouches for; returns its digest."""
        data = (source / FILE).read_bytes()
        manifest = decode(data)
        self.check_space(manifest)
        digest = digest_of(data)
        with self.pinned(manifest):
            for name, file in manifest.files.items():
                self._import(source / name, name, file)
            self.assemble(digest, data)
        return digest

    def remove(self, digest: str) -> None:
        """Takes a bundle away, and the contents that no other bundle uses. Nothing happens when it is not there."""
        if self.has(digest):
            condemned = self._building / f"removed.{secrets.token_hex(8)}"
            os.replace(self._bundle(digest), condemned)
            sync_directory(self._bundles)
            shutil.rmtree(condemned)
            self._drop_unused_blobs()

    def sweep(self) -> None:
        """Clears what a killed process left half-made. Call it once, before anything is fetched."""
        for leftover in self._building.iterdir():
            shutil.rmtree(leftover)

    def check_space(self, manifest: Manifest) -> None:
        """Raises FoothillError `unavailable` when the missing files would eat into the reserve of the disk."""
        missing = sum(file.bytes - self._partial_bytes(file.sha256) for file in self.missing(manifest))
        free = self._free(self._blobs)
        if missing > 0 and missing + self._reserve_bytes > free:
            raise FoothillError(
                "unavailable",
                f"Bundle {manifest.reference} needs {missing} more bytes and {self._reserve_bytes} must stay free, but "
                f"the disk of {self._blobs} has {free} left. Free some space, or retire a model there.",
            )

    def missing(self, manifest: Manifest) -> list[File]:
        """The contents of a bundle that are not here yet, each once."""
        unique = {file.sha256: file for file in manifest.files.values()}
        return [file for file in unique.values() if not self.blob(file.sha256).is_file()]

    def assemble(self, digest: str, manifest: bytes) -> Path:
        """Makes a bundle of contents that are all here, and shows it under its name by one rename."""
        final = self._bundle(digest)
        if final.is_dir():
            return final
        building = self._building / f"{final.name}.{secrets.token_hex(8)}"
        building.mkdir()
        for name, file in decode(manifest).files.items():
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.blob(file.sha256), building / name)
        _write_synced(building / FILE, manifest)
        for directory, _, _ in os.walk(building):
            sync_directory(Path(directory))
        self._show(building, final)
        return final

    def blob(self, digest: str) -> Path:
        """Where the content `digest` is, or will be."""
        return self._blobs / _hex(digest)

    def partial(self, digest: str) -> Path:
        """Where the content `digest` grows while it is fetched; kept over failures and restarts, to go on from."""
        return self._partial / _hex(digest)

    def lock(self, digest: str) -> asyncio.Lock:
        """Held while one content is fetched, so that two bundles which share it fetch it once."""
        return self._locks.setdefault(digest, asyncio.Lock())

    @contextmanager
    def pinned(self, manifest: Manifest) -> Iterator[None]:
        """Keeps `remove` from dropping contents that came for a bundle which is not assembled yet."""
        contents = Counter({file.sha256: 1 for file in manifest.files.values()})
        self._pinned += contents
        try:
            yield
        finally:
            self._pinned -= contents

    def adopt(self, file: File) -> None:
        """Checks a finished partial file and makes it a blob; raises FoothillError `bad_bundle` and drops it else."""
        partial = self.partial(file.sha256)
        if not _is_content(partial, file):
            partial.unlink()
            raise FoothillError("bad_bundle", f"What was received as {file.sha256} is not that content.")
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(0o444)
        os.replace(partial, self.blob(file.sha256))
        sync_directory(self._blobs)

    def _import(self, source: Path, name: str, file: File) -> None:
        if self.blob(file.sha256).is_file():
            return
        if not _is_content(source, file):
            raise FoothillError("bad_bundle", f"{source} is not the {name} of the manifest beside it. Pack it again.")
        shutil.copyfile(source, self.partial(file.sha256))
        self.adopt(file)

    def _show(self, building: Path, final: Path) -> None:
        try:
            os.rename(building, final)
        except OSError:
            if not final.is_dir():
                raise
            shutil.rmtree(building)
        sync_directory(self._bundles)

    def _bundle(self, digest: str) -> Path:
        return self._bundles / _hex(digest)

    def _partial_bytes(self, digest: str) -> int:
        return size_of(self.partial(digest))

    def _drop_unused_blobs(self) -> None:
        # Every bundle hard-links its contents, so the link count of a blob is its number of users plus one.
        for blob in self._blobs.iterdir():
            if blob.stat().st_nlink == 1 and f"sha256:{blob.name}" not in self._pinned:
                blob.unlink()


def _is_content(path: Path, file: File) -> bool:
    if size_of(path) != file.bytes or not path.is_file():
        return False
    hashed = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_READ_BYTES):
            hashed.update(chunk)
    return "sha256:" + hashed.hexdigest() == file.sha256


def _read_whole(path: Path, digest: str, name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _changed(digest, name) from error


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def size_of(path: Path) -> int:
    """0 for a file that is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _hex(digest: str) -> str:
    if not is_digest(digest):
        raise FoothillError("bad_request", f"{digest[:80]!r} is not a digest sha256:<64 hex digits>.")
    return digest.removeprefix("sha256:")


def _changed(digest: str, name: str) -> FoothillError:
    return FoothillError(
        "bad_bundle", f"File {name} of stored bundle {digest} changed on disk. Remove the bundle and fetch it again."
    )
