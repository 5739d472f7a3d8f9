"""A bundle's way from the fleet into the store: signed manifest, then every missing byte, over broken connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import aiohttp

from contracts.errors import FoothillError
from contracts.manifest import File, Manifest, decode
from runtime.links.bundles import BundleStore, size_of
from runtime.links.trust import TrustedFleet

Progress = Callable[[int, int], None]
"""Called with the bytes at hand and the bytes of the whole bundle."""

RETRY_DELAYS_S = (0.1, 0.3, 1.0, 3.0)
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=30)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")


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
        resumed = size_of(self._partial) > 0
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
        failures, furthest = 0, size_of(self._partial)
        while (error := await self._attempt()) is not None:
            if (have := size_of(self._partial)) > furthest:
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
        if size_of(self._partial) < self._file.bytes:
            raise _Interrupted("the answer ended too early")

    def _usable_start(self) -> int:
        have = size_of(self._partial)
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
            f"{self._url} could not be fetched: {cause}. {size_of(self._partial)} of {self._file.bytes} bytes are "
            f"kept, and the next attempt goes on from there.",
        )
