"""The verified bundles at hand, for the repository routes: take a model off, put it back, hand out a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from contracts import manifest as manifests
from contracts.errors import FoothillError
from runtime.links.bundles.store import BundleStore
from runtime.serving.engines.providers import Wish
from runtime.serving.models.golden import open_tested
from runtime.serving.models.hosting import ModelHost


class Repository(Protocol):
    async def load(self, model: str) -> None:
        """Serves a model from a verified bundle. Raises FoothillError `model_not_found`."""
        ...

    async def unload(self, model: str) -> None:
        """Takes a model off. Raises FoothillError `model_not_found`."""
        ...

    def file(self, digest: str, name: str) -> Path:
        """One file of a verified bundle. Raises FoothillError `not_found`."""
        ...


class StoredBundles:
    """A store of verified bundles as a repository: what was unloaded can be loaded again, from the same bundle."""

    def __init__(
        self, host: ModelHost, store: BundleStore, *, target: str, threads: int, wish: Wish | None = None
    ) -> None:
        self._host = host
        self._store = store
        self._target = target
        self._threads = threads
        self._wish = wish
        self._unloaded: dict[str, str] = {}

    async def serve(self, model: str, digest: str) -> None:
        """Opens a bundle of the store, tests it, and serves it. Raises FoothillError `bad_bundle` or `not_found`."""
        directory = self._store.path(digest)
        loaded = await asyncio.to_thread(
            open_tested, directory, digest, target=self._target, threads=self._threads, wish=self._wish
        )
        await self._host.activate(model, loaded)
        self._unloaded.pop(model, None)

    async def load(self, model: str) -> None:
        digest = self._unloaded.get(model)
        if digest is None:
            digest = self._host.get(model).loaded.digest
        await self.serve(model, digest)

    async def unload(self, model: str) -> None:
        digest = self._host.get(model).loaded.digest
        self._unloaded[model] = digest
        self._host.unloaded.add(model)
        await self._host.retire(model)

    def file(self, digest: str, name: str) -> Path:
        return stored_file(self._store, digest, name)


def stored_file(store: BundleStore, digest: str, name: str) -> Path:
    """One file of a stored bundle. Raises FoothillError `not_found`."""
    if not manifests.is_digest(digest):
        raise FoothillError("not_found", f"{digest[:80]!r} is not a digest sha256:<64 hex digits>.")
    if name != manifests.FILE and name not in store.manifest(digest).files:
        raise FoothillError("not_found", f"Bundle {digest} has no file {name[:80]!r}; its {manifests.FILE} names all.")
    return store.path(digest) / name
