"""From ONNX Runtime to the best TensorRT engine for what a node serves, without a request noticing.

ONNX Runtime answers first, always. Behind it an engine is found, fetched or built; it takes over once it has answered
the golden inputs like the model, and fast enough; and it gives way again at its first failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from contracts.engine_choice import Build, Fallback, Load
from contracts.engines import EngineRecord
from contracts.errors import FoothillError
from edge_node.engine_check import OpenEngine, Task, check_speed, open_checked, task_of
from edge_node.engine_source import EngineSource
from edge_node.guarded import GuardedEngine
from edge_node.room import Room, loading_bytes, way_in
from edge_node.updater import Updater
from edge_node.whole import whole
from runtime.links.bundles.store import BundleStore
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)

PAUSES_S = (60.0, 300.0, 1800.0)
_LASTING = ("bad_bundle", "bad_tensor")

End = Literal["done", "again", "later"]
"""Nothing more to do; what was tried is out of the question now, so decide again; or nothing can be told now."""


class Engines:
    """One piece of work at a time: a board has one GPU. `start` after the node has restored what it serves.

    `clock` is that of the host's deadlines.
    """

    def __init__(
        self,
        *,
        source: EngineSource,
        open_engine: OpenEngine,
        bundles: BundleStore,
        host: ModelHost,
        updater: Updater,
        target: str,
        room: Room,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._open_engine = open_engine
        self._bundles = bundles
        self._host = host
        self._updater = updater
        self._target = target
        self._room = room
        self._sleep = sleep
        self._clock = clock
        self._seen: dict[str, str] = {}
        self._in_use: dict[str, str] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    def start(self) -> None:
        self._updater.changed.append(self._look)
        self._look()

    async def stop(self) -> None:
        """Ends what is being built. What serves goes on."""
        if self._look in self._updater.changed:
            self._updater.changed.remove(self._look)
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _look(self) -> None:
        """Begins work on every bundle that has passed probation, once for each time that it is loaded."""
        for model, report in self._updater.reports.items():
            if report.phase in ("testing", "unloaded") and self._seen.get(model) == report.digest:
                del self._seen[model]
            settled = report.phase == "active" and report.serving == report.digest
            if settled and self._seen.get(model) != report.digest:
                self._seen[model] = report.digest
                self._begin(self._improve(model, report.digest))

    async def _improve(self, model: str, digest: str) -> None:
        """The story of one bundle."""
        try:
            task = await asyncio.to_thread(task_of, self._bundles, model, digest, self._target)
        except FoothillError as error:
            log.warning("%s stays with ONNX Runtime: %s", model, error.message)
            return
        pauses = iter(PAUSES_S)
        while task is not None and self._is_served(task):
            with self._bundles.held(digest):
                async with self._one:
                    end = await self._step(task)
            if end == "done":
                return
            if end == "later":
                await self._sleep(next(pauses, PAUSES_S[-1]))

    async def _step(self, task: Task) -> End:
        decision = await self._source.decide(task.wanted)
        if isinstance(decision, Fallback):
            log.info("%s stays with ONNX Runtime: %s", task.model, decision.why)
            return "later" if decision.passing else "done"
        if isinstance(decision, Build):
            log.info("%s: building an engine: %s", task.model, decision.why)
            record = await self._source.build(task.onnx, task.wanted, decision)
            return "again" if record is None else await self._take(task, record, built_now=True)
        return await self._load(task, decision)

    async def _load(self, task: Task, decision: Load) -> End:
        differs = f" (other {', '.join(decision.differs)})" if decision.differs else ""
        log.info("%s: engine %s is %s%s", task.model, decision.record.engine, decision.why, differs)
        return await self._take(task, decision.record, built_now=False)

    async def _take(self, task: Task, record: EngineRecord, *, built_now: bool) -> End:
        """Loads, tests and promotes an engine."""
        try:
            path = await asyncio.to_thread(self._source.store.path, record)
        except FoothillError as error:
            log.error("%s: %s", task.model, error.message)
            return "again"
        try:
            loaded = await self._tested(task, path, record)
        except FoothillError as error:
            if error.code not in _LASTING:
                log.warning("%s: engine %s cannot be tried now: %s", task.model, record.engine, error.message)
                return "later"
            # A builder that is asked again gives the same again.
            same = task.wanted if built_now else None
            await asyncio.to_thread(self._source.refuse, record, error.message, same)
            return "again"
        promoted = await self._promote(task, loaded, record)
        await asyncio.to_thread(self._source.store.collect, set(self._in_use.values()))
        if promoted and built_now:
            await self._source.offer(record)
        return "done"

    async def _tested(self, task: Task, path: Path, record: EngineRecord) -> LoadedModel:
        """The trial is open until the engine has answered: should it crash, the node's next lives leave it alone.

        Raises FoothillError `unavailable` where memory is short: ONNX Runtime goes on, whatever `memory_short` says.
        """
        await asyncio.to_thread(way_in, loading_bytes(record.bytes), self._room, replaces=False)
        trials = self._source.trials
        await asyncio.to_thread(trials.begin, record.engine, task.wanted, self._source.machine)
        try:
            loaded = await whole(asyncio.to_thread(open_checked, task, path, record, self._open_engine))
            words = await self._fast_enough(task, loaded)
        finally:
            trials.passed()
        log.info("%s: engine %s passed its test: %s", task.model, record.engine, words)
        return loaded

    async def _fast_enough(self, task: Task, loaded: LoadedModel) -> str:
        try:
            return await check_speed(task, loaded, self._host, self._clock)
        except (FoothillError, asyncio.CancelledError):
            loaded.close()
            raise

    async def _promote(self, task: Task, loaded: LoadedModel, record: EngineRecord) -> bool:
        loop = asyncio.get_running_loop()

        def failed(why: str) -> None:
            loop.call_soon_threadsafe(self._begin_demoting, task, record, why)

        loaded.engine = GuardedEngine(loaded.engine, failed)
        promoted = await self._updater.promote(task.model, loaded)
        if promoted:
            self._in_use[task.model] = record.engine
        log.info("%s is %s by %s", task.model, "served" if promoted else "no longer to be served", record.engine)
        return promoted

    def _begin_demoting(self, task: Task, record: EngineRecord, why: str) -> None:
        self._begin(self._demote(task, record, why))

    async def _demote(self, task: Task, record: EngineRecord, why: str) -> None:
        """Back to ONNX Runtime, for good: an engine that failed once is not trusted again."""
        log.error("%s: engine %s failed, ONNX Runtime takes over: %s", task.model, record.engine, why)
        try:
            await self._updater.repository.replace(task.model, task.digest)
        except FoothillError as error:
            log.error("%s: ONNX Runtime cannot take over: %s", task.model, error.message)
        self._in_use.pop(task.model, None)
        async with self._one:
            await asyncio.to_thread(self._source.refuse, record, why, task.wanted)

    def _is_served(self, task: Task) -> bool:
        served = self._host.models.get(task.model)
        return served is not None and served.loaded.digest == task.digest

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work on an engine failed; ONNX Runtime goes on", exc_info=error)
