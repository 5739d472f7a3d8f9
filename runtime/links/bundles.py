"""A content-addressed directory of verified bundles, and the way one gets into it from the fleet."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import aiohttp

from contracts.errors import FoothillError
from contracts.manifest import FILE, File, Manifest, decode, digest_of, is_digest
from runtime.links.durable import sync_directory
from runtime.links.trust import TrustedFleet

Progress = Callable[[int, int], None]
"""Called with the bytes at hand and the bytes of the whole bundle."""

RESERVE_BYTES = 64 << 20
RETRY_DELAYS_S = (0.1, 0.3, 1.0, 3.0)
_READ_BYTES = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=30)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")


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
        return _size(self.partial(digest))

    def _drop_unused_blobs(self) -> None:
        # Every bundle hard-links its contents, so the link count of a blob is its number of users plus one.
        for blob in self._blobs.iterdir():
            if blob.stat().st_nlink == 1 and f"sha256:{blob.name}" not in self._pinned:
                blob.unlink()


async def fetch_bundle(
    store: BundleStore,
    trust: TrustedFleet,
    fleet_url: str,
    model: str,
    digest: str,
    manifest: bytes | None,
    progress: Progress | None = None,
    *,
    retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
) -> Path:
    """The verified directory of a bundle: its signed manifest first, then each content that is missing.

    `manifest` spares a download when it is the signed one. Raises TrustError, TrustUnavailable, or FoothillError:
    `bad_bundle` (wrong bytes), `not_found` (the fleet lacks a content), `unavailable` (network or disk; call again
    and it goes on where it stopped).
    """
    data = await asyncio.to_thread(trust.manifest, model, digest, manifest)
    described = decode(data)
    if described.model != model:
        raise FoothillError("bad_bundle", f"Bundle {digest} serves model {described.model}, not {model}.")
    if store.has(digest):
        return store.path(digest)
    await asyncio.to_thread(store.check_space, described)
    with store.pinned(described):
        report = _Progress(store, described, progress)
        async with aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session:
            for file in store.missing(described):
                await _BlobFetch(session, store, fleet_url, file, report, retry_delays_s).run()
        return await asyncio.to_thread(store.assemble, digest, data)


class _Interrupted(Exception):  # noqa: N818 - never leaves this file
    """The transfer broke; what came stays, and the next attempt goes on from there."""


class _Progress:
    """Adds up what is at hand of one bundle."""

    def __init__(self, store: BundleStore, manifest: Manifest, report: Progress | None) -> None:
        unique = {file.sha256: file.bytes for file in manifest.files.values()}
        self._total = sum(unique.values())
        self._have = self._total - sum(file.bytes for file in store.missing(manifest))
        self._report = report

    def at(self, partial: int) -> None:
        if self._report is not None:
            self._report(self._have + partial, self._total)

    def finished(self, file: File) -> None:
        self._have += file.bytes
        self.at(0)


class _BlobFetch:
    """One content on its way into the store, over as many broken connections as it takes."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        store: BundleStore,
        fleet_url: str,
        file: File,
        progress: _Progress,
        retry_delays_s: Sequence[float],
    ) -> None:
        self._session = session
        self._store = store
        self._url = f"{fleet_url.rstrip('/')}/v1/blobs/{file.sha256}"
        self._file = file
        self._partial = store.partial(file.sha256)
        self._progress = progress
        self._delays = retry_delays_s

    async def run(self) -> None:
        async with self._store.lock(self._file.sha256):
            if not self._store.blob(self._file.sha256).is_file():
                await self._complete()
        self._progress.finished(self._file)

    async def _complete(self) -> None:
        resumed = _size(self._partial) > 0
        await self._receive_all()
        try:
            await asyncio.to_thread(self._store.adopt, self._file)
        except FoothillError:
            if not resumed:
                raise
            # The start of the file may be rotten from before a power cut: one fresh transfer tells.
            await self._receive_all()
            await asyncio.to_thread(self._store.adopt, self._file)

    async def _receive_all(self) -> None:
        """Attempts with growing pauses; one that came further than all before starts the count again."""
        failures, furthest = 0, _size(self._partial)
        while (error := await self._attempt()) is not None:
            if (have := _size(self._partial)) > furthest:
                failures, furthest = 0, have
            if failures == len(self._delays):
                raise self._gave_up(error) from error
            await asyncio.sleep(self._delays[failures])
            failures += 1

    async def _attempt(self) -> Exception | None:
        """What broke the transfer, or None when all bytes are here."""
        try:
            await self._receive()
        except (_Interrupted, aiohttp.ClientError, asyncio.TimeoutError) as error:
            return error
        return None

    async def _receive(self) -> None:
        """One request for what is missing. Raises _Interrupted when it ended too early."""
        have = self._usable_start()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        if have == self._file.bytes and self._partial.exists():
            return
        async with self._session.get(self._url, headers=headers) as response:
            start = self._start_of(response.status, response.headers, have)
            with self._partial.open("r+b" if start else "wb") as file:
                file.seek(start)
                await self._copy(response.content.iter_any(), file, start)
        if _size(self._partial) < self._file.bytes:
            raise _Interrupted("the answer ended too early")

    def _usable_start(self) -> int:
        have = _size(self._partial)
        if have > self._file.bytes:
            self._partial.unlink()
            return 0
        return have

    def _start_of(self, status: int, headers: Mapping[str, str], have: int) -> int:
        if status == 206 and have:
            found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if found and int(found.group(1)) == have:
                return have
        if status == 200:
            return 0
        if status in (206, 416):
            self._partial.unlink(missing_ok=True)
            raise _Interrupted(f"HTTP {status} does not fit the {have} bytes at hand; starting over")
        if status >= 500 or status == 429:
            raise _Interrupted(f"HTTP {status}")
        raise FoothillError(
            "not_found" if status == 404 else "upstream_failed",
            f"{self._url} answered HTTP {status}. Is the bundle published in full?",
        )

    async def _copy(self, chunks: AsyncIterator[bytes], file: BinaryIO, at: int) -> None:
        async for chunk in chunks:
            at += len(chunk)
            if at > self._file.bytes:
                self._partial.unlink()
                raise FoothillError(
                    "bad_bundle", f"{self._url} sends more than the {self._file.bytes} bytes that are signed."
                )
            await asyncio.to_thread(file.write, chunk)
            self._progress.at(at)

    def _gave_up(self, error: Exception) -> FoothillError:
        cause = str(error) or type(error).__name__
        return FoothillError(
            "unavailable",
            f"{self._url} could not be fetched: {cause}. {_size(self._partial)} of {self._file.bytes} bytes are kept, "
            f"and the next attempt goes on from there.",
        )


def _is_content(path: Path, file: File) -> bool:
    if _size(path) != file.bytes or not path.is_file():
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


def _size(path: Path) -> int:
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
