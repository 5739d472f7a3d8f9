"""Where a node gets an engine from: its own store, the fleet's, or its own builder."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from contracts.engine_choice import Build, Decision, Facts, Load, choose
from contracts.engines import EngineRecord, Machine, Wanted
from contracts.errors import FoothillError
from contracts.messages import Signed
from edge_node.whole import whole
from runtime.links.bundles.engine_registry import SharedEngine
from runtime.serving.engines.store import EngineStore
from runtime.serving.engines.tensorrt_build import BuiltFile
from runtime.serving.engines.tensorrt_options import BuildOptions, options_for
from runtime.serving.engines.trials import TrialFile

log = logging.getLogger(__name__)

BuildEngine = Callable[[Path, BuildOptions, Machine, Path, "Path | None"], Awaitable[BuiltFile]]
"""From the ONNX file, the options, the machine, a room to build in, and timings or None. Raises FoothillError."""

_LIBRARY_BYTES = 1 << 30
_COPIES = 4


class SharedEngines(Protocol):
    """Where nodes of one fleet leave engines for each other. All methods raise FoothillError."""

    async def find(self, onnx: str) -> list[SharedEngine]:
        """Engines of an ONNX file whose signatures are good."""
        ...

    async def fetch(self, record: EngineRecord, path: Path) -> None: ...

    async def offer(self, envelope: Signed, path: Path) -> None: ...


class NoShared:
    """A node that keeps its engines to itself."""

    async def find(self, onnx: str) -> list[SharedEngine]:
        return []

    async def fetch(self, record: EngineRecord, path: Path) -> None:
        raise FoothillError("not_found", "This node shares no engines.")

    async def offer(self, envelope: Signed, path: Path) -> None:
        return None


class Vitals(NamedTuple):
    """How the board is now."""

    free_bytes: int
    temperature_c: float | None


class EngineSource:
    """One question at a time: `store` and `trials` are not for several."""

    def __init__(
        self,
        *,
        machine: Machine,
        store: EngineStore,
        trials: TrialFile,
        shared: SharedEngines,
        build: BuildEngine,
        sign: Callable[[EngineRecord], Signed],
        vitals: Callable[[], Vitals],
    ) -> None:
        self.machine = machine
        self.store = store
        self.trials = trials
        self._shared = shared
        self._build = build
        self._sign = sign
        self._vitals = vitals

    async def decide(self, wanted: Wanted) -> Decision:
        """An engine at hand, else one of the fleet's, which is then fetched; else a build, or ONNX Runtime."""
        facts = self._facts(wanted)
        local = await asyncio.to_thread(self.store.records)
        timings = await asyncio.to_thread(self.store.timings)
        decision = choose(wanted, local, timings, self.machine, facts)
        if isinstance(decision, Load) and decision.why == "exact":
            return decision
        shared = {one.record.engine: one for one in await self._find(wanted)}
        wider = choose(wanted, [*local, *(one.record for one in shared.values())], timings, self.machine, facts)
        if not isinstance(wider, Load) or wider.record in local:
            return wider
        return wider if await self._fetch(shared[wider.record.engine]) else decision

    async def build(self, onnx: Path, wanted: Wanted, decision: Build) -> EngineRecord | None:
        """Builds, signs and stores an engine; None, and never again, when it cannot be built here."""
        timings = await asyncio.to_thread(self.store.timings_path, decision.cache) if decision.cache else None
        options = options_for(wanted, self.machine.kind)
        try:
            with self.store.room() as room:
                built = await self._build(onnx, options, self.machine, room, timings)
                return await whole(asyncio.to_thread(self._keep, built))
        except FoothillError as error:
            log.error("no engine was built from %s: %s", onnx.name, error.message)
            await asyncio.to_thread(self.trials.fail, wanted, self.machine, error.message)
            return None

    async def offer(self, record: EngineRecord) -> None:
        """That the fleet takes no engine is no failure of this node's."""
        try:
            path = await asyncio.to_thread(self.store.path, record)
            await self._shared.offer(self.store.envelope(record.engine), path)
        except FoothillError as error:
            log.info("engine %s is not shared: %s", record.engine, error.message)

    def refuse(self, record: EngineRecord, why: str, wanted: Wanted | None = None) -> None:
        """Blocks. Never loads the engine again. `wanted` is named when building it would give the same once more."""
        self.trials.refuse(record.engine, why)
        self.store.drop(record.engine)
        if wanted is not None:
            self.trials.fail(wanted, self.machine, why)

    async def _find(self, wanted: Wanted) -> list[SharedEngine]:
        try:
            return await self._shared.find(wanted.onnx)
        except FoothillError as error:
            log.info("the fleet's engines are not known: %s", error.message)
            return []

    async def _fetch(self, found: SharedEngine) -> bool:
        try:
            with self.store.room() as room:
                await self._shared.fetch(found.record, room / "engine")
                await whole(asyncio.to_thread(self.store.add, found.envelope, room / "engine"))
        except FoothillError as error:
            log.warning("engine %s of the fleet is not taken: %s", found.record.engine, error.message)
            return False
        return True

    def _keep(self, built: BuiltFile) -> EngineRecord:
        for note in built.notes:
            log.info("the builder says: %s", note)
        log.info("an engine of %d bytes was built in %.1f s", built.record.bytes, built.took_s)
        record = self.store.add(self._sign(built.record), built.engine)
        if built.timings is not None:
            self.store.add_timings(built.timings.read_bytes(), self.machine)
        return record

    def _facts(self, wanted: Wanted) -> Facts:
        vitals = self._vitals()
        return Facts(
            free_bytes=vitals.free_bytes,
            needed_bytes=needed_bytes(options_for(wanted, self.machine.kind), wanted),
            temperature_c=vitals.temperature_c,
            refused=self.trials.refused,
            failed_builds=frozenset({wanted.key} if self.trials.failed(wanted, self.machine) else ()),
        )


def needed_bytes(options: BuildOptions, wanted: Wanted) -> int:
    """What a build is taken to need: the libraries, the scratch memory of a tactic, some copies of the inputs.

    An estimate, not measured on a board; a build that takes more is ended
    (`runtime.serving.engines.tensorrt_build.Bounds`).
    """
    largest = sum(4 * math.prod(shapes.max) for shapes in wanted.profile)
    return _LIBRARY_BYTES + options.workspace_bytes + _COPIES * largest
