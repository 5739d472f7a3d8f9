"""A content-addressed directory of verified bundles."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import threading
import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.errors import FoothillError
from contracts.manifest import FILE, File, Manifest, decode, digest_of, is_digest
from runtime.links.chunks.bits import BITS_SUFFIX, ChunkBits
from runtime.links.process.disk import REAL_DISK, Disk
from runtime.links.process.durable import make_directories, remove_tree, write_file

log = logging.getLogger(__name__)

RESERVE_BYTES = 64 << 20
SYNC_BYTES = 4 << 20
_READ_BYTES = 1 << 20


class NoSpace(FoothillError):  # noqa: N818 - it names a state of the world, not a mistake
    """The disk is too full for what was asked; what is stored, and serves, stays."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class BundleStore:
    """`blobs/sha256/<hex>` holds file contents, `bundles/<hex>/` complete bundles of hard links to them.

    A bundle appears under its name by one rename, after every byte of it was checked and synced. One process a
    directory; `reserve_bytes` of the disk are never used. What a content that is still coming has written is synced
    every `sync_bytes`. Thread-safe.
    """

    def __init__(
        self,
        root: Path,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        sync_bytes: int = SYNC_BYTES,
        disk: Disk = REAL_DISK,
    ) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._bundles = root / "bundles"
        self._partial = root / "partial"
        self._building = root / "building"
        for directory in (self._blobs, self._bundles, self._partial, self._building):
            make_directories(directory, disk)
        self.disk = disk
        self.sync_bytes = sync_bytes
        self._reserve_bytes = reserve_bytes
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._changing = threading.RLock()
        self._pinned: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._coming: dict[str, frozenset[str]] = {}
        self._promised_bytes = 0

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

    def contents(self) -> set[str]:
        """The digest of every file that is here whole, whichever bundle has it."""
        return {f"sha256:{blob.name}" for blob in self._blobs.iterdir()}

    def verify(self, digest: str, *, but: Collection[str] = ()) -> Manifest:
        """Reads every byte of a bundle again, `but` of those files that somebody else checks; raises FoothillError
        `bad_bundle` naming the file that changed."""
        directory = self.path(digest)
        data = _read_whole(directory / FILE, digest, FILE)
        if digest_of(data) != digest:
            raise _changed(digest, FILE)
        manifest = decode(data)
        for name, file in manifest.files.items():
            if name not in but and not _is_content(directory / name, file):
                raise _changed(digest, name)
        return manifest

    def add_directory(self, source: Path) -> str:
        """Imports a packed bundle directory whose signature the caller vouches for; returns its digest."""
        data = (source / FILE).read_bytes()
        manifest = decode(data)
        digest = digest_of(data)
        with self.pinned(digest, manifest), self.room_for(manifest):
            self.drop_changed(manifest)
            for name, file in manifest.files.items():
                self._import(source / name, name, file)
            self.assemble(digest, data)
        return digest

    def remove(self, digest: str) -> None:
        """Takes a bundle away, and the contents that no other bundle uses. Nothing happens when it is not there."""
        with self._changing:
            if self.has(digest):
                self._take_away(digest)
                self._drop_unused_blobs()

    def collect(self, keep: Collection[str], coming: Collection[str] = ()) -> None:
        """Takes away every bundle but those of `keep` and those held, and every content that none of them has.

        What an interrupted fetch of a bundle of `coming` has left stays, to go on from.
        """
        with self._changing:
            for digest in self.digests():
                if digest not in keep and digest not in self._held:
                    self._take_away(digest)
            self._coming = {digest: contents for digest, contents in self._coming.items() if digest in coming}
            self._drop_unused_blobs()
            self._drop_unused_partials()

    @contextmanager
    def held(self, digest: str) -> Iterator[None]:
        """Keeps `collect` from a bundle that somebody reads, whether it is served or not."""
        with self._changing:
            self._held[digest] += 1
        try:
            yield
        finally:
            with self._changing:
                self._held -= Counter({digest: 1})

    def sweep(self) -> None:
        """Clears what a killed process left half-made, and of what it was fetching the part that a power cut may have
        torn. Call it once, before anything is fetched."""
        for leftover in self._building.iterdir():
            remove_tree(leftover, self.disk)
        for entry in sorted(self._partial.iterdir()):  # a content comes before its bits
            if not entry.suffix:
                self._trim(entry)
            elif entry.suffix != BITS_SUFFIX or not entry.with_suffix("").exists():
                self.disk.unlink(entry)

    @contextmanager
    def room_for(self, manifest: Manifest) -> Iterator[None]:
        """Sets aside what the missing files of a bundle need, until they are here. Raises NoSpace when it would eat
        into the reserve of the disk, or into what others were promised."""
        missing = sum(file.bytes - self._partial_bytes(file.sha256) for file in self.missing(manifest))
        with self._changing:
            if missing > 0:
                needs = f"Bundle {manifest.reference} needs {missing} more bytes"
                self._check_room(needs, missing + self._promised_bytes)
            self._promised_bytes += missing
        try:
            yield
        finally:
            with self._changing:
                self._promised_bytes -= missing

    def check_reserve(self) -> None:
        """Raises NoSpace when others have filled the disk while something was fetched."""
        self._check_room("It fills up", 0)

    def free_bytes(self) -> int:
        """Of the disk, the reserve included."""
        return self.disk.free_bytes(self._root)

    def drop_changed(self, manifest: Manifest) -> None:
        """Drops those contents of a bundle which went bad on this disk, so that they are fetched again."""
        for file in manifest.files.values():
            blob = self.blob(file.sha256)
            if blob.is_file() and not _is_content(blob, file):
                log.warning("content %s changed on disk and is dropped", file.sha256)
                self.disk.unlink(blob)

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
        self.disk.make_directory(building)
        for name, file in decode(manifest).files.items():
            make_directories((building / name).parent, self.disk)
            self.disk.link(self.blob(file.sha256), building / name)
        write_file(building / FILE, manifest, disk=self.disk)
        for directory, _, _ in os.walk(building):
            self.disk.sync_directory(Path(directory))
        self._show(building, final)
        return final

    def blob(self, digest: str) -> Path:
        """Where the content `digest` is, or will be."""
        return self._blobs / _hex(digest)

    def partial(self, digest: str) -> Path:
        """Where the content `digest` grows while it is fetched; kept over failures and restarts, to go on from."""
        return self._partial / _hex(digest)

    def bits(self, digest: str) -> Path:
        """Which chunks of a partial content are here, where it does not grow from its beginning."""
        return self._bits(self.partial(digest))

    def lock(self, digest: str) -> asyncio.Lock:
        """Held while one content is fetched, so that two bundles which share it fetch it once."""
        return self._locks.setdefault(digest, asyncio.Lock())

    @contextmanager
    def pinned(self, digest: str, manifest: Manifest) -> Iterator[None]:
        """Keeps the contents that come for a bundle which is not assembled yet."""
        contents = frozenset(file.sha256 for file in manifest.files.values())
        with self._changing:
            self._coming[digest] = contents
            self._pinned += Counter(contents)
        try:
            yield
        finally:
            with self._changing:
                self._pinned -= Counter(contents)
                if self.has(digest):
                    self._coming.pop(digest, None)

    def adopt(self, file: File) -> None:
        """Checks a finished partial file and makes it a blob; raises FoothillError `bad_bundle` and drops it else."""
        partial = self.partial(file.sha256)
        if not _is_content(partial, file):
            self.disk.unlink(partial)
            raise FoothillError("bad_bundle", f"What was received as {file.sha256} is not that content.")
        self.disk.sync(partial)
        self.disk.seal(partial)
        self.disk.replace(partial, self.blob(file.sha256))
        self.disk.sync_directory(self._blobs)

    def _import(self, source: Path, name: str, file: File) -> None:
        if self.blob(file.sha256).is_file():
            return
        if not _is_content(source, file):
            raise FoothillError("bad_bundle", f"{source} is not the {name} of the manifest beside it. Pack it again.")
        self._copy(source, self.partial(file.sha256))
        self.adopt(file)

    def _copy(self, source: Path, target: Path) -> None:
        written = self.disk.open(target)
        try:
            with source.open("rb") as opened:
                while chunk := opened.read(_READ_BYTES):
                    written.write(chunk)
        finally:
            written.close()

    def _show(self, building: Path, final: Path) -> None:
        try:
            self.disk.replace(building, final)
        except OSError:
            if not final.is_dir():
                raise
            remove_tree(building, self.disk)
        self.disk.sync_directory(self._bundles)

    def _take_away(self, digest: str) -> None:
        condemned = self._building / f"removed.{secrets.token_hex(8)}"
        self.disk.replace(self._bundle(digest), condemned)
        self.disk.sync_directory(self._bundles)
        remove_tree(condemned, self.disk)

    def _trim(self, partial: Path) -> None:
        found = partial.stat()
        if self._bits(partial).exists() and found.st_nlink == 1:
            return  # the bits speak of synced chunks alone
        whole = found.st_size // self.sync_bytes * self.sync_bytes
        # After a power cut a file that had moved may have its old name as well: cutting it would cut the content.
        if whole and found.st_nlink == 1:
            self.disk.open(partial, at=whole).close()
        else:
            self.disk.unlink(partial)

    def _check_room(self, what: str, wanted: int) -> None:
        free = self.disk.free_bytes(self._blobs)
        if wanted + self._reserve_bytes > free:
            raise NoSpace(
                f"{what} and {self._reserve_bytes} must stay free, but the disk of {self._blobs} has {free} left"
                f"{f', {self._promised_bytes} of it promised' if self._promised_bytes else ''}. "
                f"Free some space, or retire a model there."
            )

    def _bundle(self, digest: str) -> Path:
        return self._bundles / _hex(digest)

    def _bits(self, partial: Path) -> Path:
        return partial.with_name(partial.name + BITS_SUFFIX)

    def _partial_bytes(self, digest: str) -> int:
        kept = ChunkBits.read(self.bits(digest))
        return size_of(self.partial(digest)) if kept is None else kept.held_bytes

    def _drop_unused_blobs(self) -> None:
        # Every bundle hard-links its contents, so the link count of a blob is its number of users plus one.
        spared = self._spared()
        for blob in self._blobs.iterdir():
            if blob.stat().st_nlink == 1 and f"sha256:{blob.name}" not in spared:
                self.disk.unlink(blob)

    def _drop_unused_partials(self) -> None:
        spared = self._spared()
        for partial in self._partial.iterdir():
            if f"sha256:{partial.name.partition('.')[0]}" not in spared:
                self.disk.unlink(partial)

    def _spared(self) -> set[str]:
        return set(self._pinned).union(*self._coming.values())


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
