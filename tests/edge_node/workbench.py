"""A node's updater on a real store, real slots and a real host of models; only the network is played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.messages import Desired, ModelReport
from edge_node.intake import Fetch
from edge_node.latency import LatencyRule
from edge_node.loader import Loader, OpenBundle
from edge_node.probation import Rule, WatchedEngine
from edge_node.room import Room
from edge_node.slots import SlotFile
from edge_node.updater import Updater
from runtime.links.bundles.store import BundleStore
from runtime.links.process.disk import REAL_DISK, Disk
from runtime.serving.engines.engine import Engine
from runtime.serving.engines.tensors import Array
from runtime.serving.models.golden import open_tested
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.bundle_factory import pack

OPEN_TESTED: OpenBundle = partial(open_tested, target="cpu-x86", threads=1)
BOUNDLESS = Room(available_bytes=lambda: 0)
ANY_LATENCY = LatencyRule(max_slowdown=0.0)
NODE = "frankfurt"
QUICK = Rule(seconds=0.02, requests=5)
LONG = Rule(seconds=60.0, requests=10_000)


class Warehouse:
    """Packed bundles by digest, and whether the way to them is open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.packed: dict[str, Path] = {}
        self.error: FoothillError | None = None
        self.fetched: list[str] = []

    def pack(
        self, version: str, *, model: str = "digits", golden_error: float = 0.0, model_bytes: bytes | None = None
    ) -> str:
        directory = self._directory / f"{model}-{version}"
        digest = pack(
            directory,
            version=version,
            seed=int(version),
            model=model,
            golden_error=golden_error,
            model_bytes=model_bytes,
        )
        self.packed[digest] = directory
        return digest

    def fetch_into(self, store: BundleStore) -> Fetch:
        async def fetch(model: str, digest: str, manifest: bytes | None) -> Path:
            self.fetched.append(digest)
            if self.error is not None:
                raise self.error
            store.add_directory(self.packed[digest])
            return store.path(digest)

        return fetch


class Broken:
    """An engine whose board has given up."""

    concurrent = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.provider = engine.provider

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise FoothillError("internal", "The engine failed: out of memory.")

    def close(self) -> None:
        self._engine.close()


class Bench:
    """One life of a node. Another Bench on the same directory is its next life."""

    def __init__(
        self,
        directory: Path,
        warehouse: Warehouse,
        *,
        rule: Rule = QUICK,
        store: BundleStore | None = None,
        fetch: Fetch | None = None,
        open_bundle: OpenBundle = OPEN_TESTED,
        room: Room = BOUNDLESS,
        latency: LatencyRule = ANY_LATENCY,
        disk: Disk = REAL_DISK,
    ) -> None:
        self.store = store or BundleStore(directory / "store", reserve_bytes=0, disk=disk)
        self.slots = SlotFile(directory, disk)
        self.host = ModelHost(drain_s=1.0)
        self.announced: list[LoadedModel] = []
        self.wall_s: Callable[[], float] = time.time
        self.serving_next: Callable[[LoadedModel], None] = self.announced.append
        self.phases: list[tuple[str, str]] = []
        self.updater = Updater(
            node=NODE,
            store=self.store,
            slots=self.slots,
            host=self.host,
            fetch=fetch or warehouse.fetch_into(self.store),
            loader=Loader(self.store, self.host, open_bundle, target="cpu-x86", room=room, latency=latency),
            rule=rule,
            serving=lambda loaded: self.serving_next(loaded),
            made=directory / "providers",
            wall=lambda: self.wall_s(),
        )
        self.updater.changed.append(self._note)
        self.repository = self.updater.repository

    def report(self, model: str = "digits") -> ModelReport:
        return self.updater.reports[model]

    def serving(self, model: str = "digits") -> str:
        served = self.host.models.get(model)
        return served.loaded.digest if served is not None else ""

    async def ask(self, model: str = "digits") -> None:
        """One request through the batcher; raises what a caller would see."""
        inputs = {"image": np.zeros((1, 1, 8, 8), np.float32)}
        with self.host.get(model) as served:
            await served.batcher.submit(inputs, Deadline.after(5000, now_s=time.monotonic()))

    def ask_nonsense(self, model: str = "digits") -> None:
        """Values that the engine cannot take."""
        self._refused(model, "bad_tensor")

    def break_engine(self, model: str = "digits") -> None:
        """From now on the engine fails, as it first does here."""
        loaded = self.host.get(model).loaded
        loaded.engine = WatchedEngine(Broken(loaded.engine))
        self._refused(model, "internal")

    def _refused(self, model: str, code: str) -> None:
        with pytest.raises(FoothillError) as refused:
            self.host.get(model).loaded.run({"image": np.zeros((1, 2), np.float32)})
        assert refused.value.code == code

    def _note(self) -> None:
        for report in self.updater.reports.values():
            entry = (report.digest, report.phase)
            if self.phases[-1:] != [entry]:
                self.phases.append(entry)


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    async def wait() -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), timeout_s)


def desired(sequence: int, models: dict[str, str], *, node: str = NODE, expires_in_s: float = 3600.0) -> Desired:
    now_s = time.time()
    return Desired(node, sequence, now_s, now_s + expires_in_s, models)
