"""A bundle's way from the fleet into the store: signed manifest, then every missing byte, over broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from contracts.errors import FoothillError
from contracts.manifest import File, Manifest, decode
from runtime.links.bundles.store import BundleStore, size_of

Progress = Callable[[int, int], None]
"""Called with the bytes at hand and the bytes of the whole bundle."""


class Way(Protocol):
    """One way for contents from the fleet, open for the time of one bundle."""

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        """Until `store.partial` has as many bytes as `file`, going on from what an earlier attempt left there.

        `told` gets the bytes at hand. Raises OSError when the disk fails, and FoothillError: `bad_bundle` (more bytes
        than were signed), `not_found` (the fleet lacks the content), `unavailable` (the network, or NoSpace).
        """
        ...


Ways = Callable[[], AbstractAsyncContextManager[Way]]


class Manifests(Protocol):
    """Whose word says what a bundle is; `runtime.links.trust.tuf.TrustedFleet` is one."""

    def manifest(self, model: str, digest: str, candidate: bytes | None) -> bytes:
        """Blocks. The signed manifest of `digest`; `candidate` spares a download."""
        ...


async def fetch_bundle(
    store: BundleStore,
    trust: Manifests,
    ways: Ways,
    model: str,
    digest: str,
    manifest: bytes | None,
    progress: Progress | None = None,
) -> Path:
    """The verified directory of a bundle: its signed manifest first, then each content that is missing.

    `manifest` spares a download when it is the signed one. Raises TrustError, TrustUnavailable, OSError, or
    FoothillError: `bad_bundle` (wrong bytes), `not_found` (the fleet lacks a content), `unavailable` (network or disk;
    call again and it goes on where it stopped).
    """
    data = await asyncio.to_thread(trust.manifest, model, digest, manifest)
    described = decode(data)
    if described.model != model:
        raise FoothillError("bad_bundle", f"Bundle {digest} serves model {described.model}, not {model}.")
    if store.has(digest):
        return store.path(digest)
    with store.pinned(digest, described):
        await asyncio.to_thread(store.drop_changed, described)
        with store.room_for(described):
            report = _Progress(store, described, progress)
            async with ways() as way:
                for file in store.missing(described):
                    await _fetch_content(store, way, file, report)
            return await asyncio.to_thread(store.assemble, digest, data)


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


async def _fetch_content(store: BundleStore, way: Way, file: File, report: _Progress) -> None:
    async with store.lock(file.sha256):
        if not store.blob(file.sha256).is_file():
            await _complete(store, way, file, report)
    report.finished(file)


async def _complete(store: BundleStore, way: Way, file: File, report: _Progress) -> None:
    resumed = size_of(store.partial(file.sha256)) > 0
    await way.bring(store, file, report.at)
    try:
        await asyncio.to_thread(store.adopt, file)
    except FoothillError:
        if not resumed:
            raise
        # What stood there may be rotten from before a power cut: one fresh transfer tells.
        await way.bring(store, file, report.at)
        await asyncio.to_thread(store.adopt, file)
