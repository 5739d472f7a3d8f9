"""The models a process serves, and the switch from one bundle to the next without a failed request."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from contracts import headers
from contracts.errors import FoothillError
from runtime.links.http.exchanges import Fixed
from runtime.links.process.few import Few
from runtime.links.process.within import within
from runtime.serving.batching.turns import Turns
from runtime.serving.models.batcher import Batcher
from runtime.serving.models.forms import Forms
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.models.meter import Meters
from runtime.serving.models.statistics import ModelStatistics

log = logging.getLogger(__name__)

DRAIN_S = 30.0
_BACK_S = 2.0
"""Until a model comes, or is back from its change of bundles, where nobody has measured how long its last one took."""
_MEMORY = 0.9


def own_cores() -> int:
    """The cores of this process."""
    # Where a container or taskset leaves fewer cores than the machine has, only those count; Linux alone can tell.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def lanes_of(cores: int, threads: int) -> int:
    """How many runs of `threads` each fill `cores`."""
    return max(1, cores // threads)


def slots_of(cores: int, threads: int) -> int:
    """How many runs of `threads` each there may be at once, of all models together: at least two.

    With a second slot a short run goes beside a long one, and the operating system shares the cores between them; with
    one it would wait until the long one ends, which cannot be interrupted.
    """
    return max(2, lanes_of(cores, threads))


class LoadFigures(msgspec.Struct, frozen=True):
    """Requests being worked on now, and the recent mean time of the queue and of the service (all but it) in ms."""

    in_flight: int
    queue_ms: float
    service_ms: float

    def header(self) -> str:
        """The value of `Foothill-Load`."""
        return f"in_flight={self.in_flight};queue_ms={self.queue_ms:.3f};service_ms={self.service_ms:.3f}"


class Away(NamedTuple):
    """A model that makes room for its next bundle: why, and about how long that takes, by what the last one took."""

    why: str
    back_after_s: float


class ServedReport(msgspec.Struct, frozen=True):
    """What one model is served from."""

    digest: str
    bundle: str
    stratum: str
    artifact: str
    provider: str
    in_flight: int


def _named(loaded: LoadedModel) -> dict[str, str]:
    """The headers that are the same on all of a model's answers."""
    named = {headers.MODEL: loaded.manifest.reference, headers.DIGEST: loaded.digest}
    return {**named, headers.STRATUM: loaded.stratum} if loaded.stratum else named


class Served:
    """One loaded model with its batcher. Used as a context, it is not closed before the context has ended."""

    def __init__(self, loaded: LoadedModel, batcher: Batcher) -> None:
        self.loaded = loaded
        self.batcher = batcher
        self.statistics = ModelStatistics(loaded.manifest.model, loaded.manifest.version)
        self.forms = Forms(loaded.manifest, batches=loaded.batches)
        self.batches = loaded.batches
        self.named = _named(loaded)
        self.fixed: Few[tuple[str, int | None, str, bool], Fixed] = Few()
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """It is not closed before as many have left as have entered."""
        self.in_flight += 1
        if self.in_flight == 1:
            self._idle.clear()

    def leave(self, count: int = 1) -> None:
        self.in_flight -= count
        if self.in_flight == 0:
            self._idle.set()

    def __enter__(self) -> Served:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def close(self, drain_s: float) -> None:
        """Waits for its users, then for its engine threads, and frees the model."""
        try:
            await within(self._idle.wait(), drain_s)
        except asyncio.TimeoutError:
            log.warning("%s: %d requests still run after %.0f s of draining", self.name, self.in_flight, drain_s)
        await self.batcher.close()
        self.loaded.close()

    @property
    def name(self) -> str:
        return self.loaded.manifest.reference


class ModelHost:
    """Logical model to what serves it. `expected` are the models without which the process is not ready.

    A run takes `threads` of `cores`, None: of all that this process has. A model runs on as many lanes at once as there
    are cores for, where its engine is `concurrent`. `away` are models that make room for their next bundle and come
    back: until then the process is not ready. `unloaded` are those that somebody took off, until they are served again.
    """

    def __init__(
        self,
        *,
        expected: Iterable[str] = (),
        max_waiting: int = 256,
        threads: int = 1,
        cores: int | None = None,
        drain_s: float = DRAIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected = tuple(expected)
        self._max_waiting = max_waiting
        cores = cores or own_cores()
        self._lanes = lanes_of(cores, threads)
        self._turns = Turns(slots_of(cores, threads))
        self._drain_s = drain_s
        self._clock = clock
        self._served: dict[str, Served] = {}
        self.away: dict[str, Away] = {}
        self.unloaded: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self.meters = Meters()
        self._queue_ms = 0.0
        self._service_ms = 0.0

    @property
    def ready(self) -> bool:
        return bool(self._served) and not self.away and all(model in self._served for model in self.expected)

    @property
    def missing(self) -> list[str]:
        """The models without which it is not ready."""
        return sorted({*self.away, *(model for model in self.expected if model not in self._served)})

    @property
    def models(self) -> Mapping[str, Served]:
        return self._served

    async def activate(self, model: str, loaded: LoadedModel) -> None:
        """Serves `loaded` from the next request on; returns when the one before it has drained and is closed.

        Takes `loaded` over, and closes it in its turn. Raises FoothillError `bad_bundle` for a bundle of another model.
        """
        if loaded.manifest.model != model:
            raise FoothillError(
                "bad_bundle", f"Bundle {loaded.manifest.reference} serves {loaded.manifest.model}, not {model}."
            )
        before = self._served.get(model)
        self._served[model] = Served(loaded, self._batcher(loaded))
        self.give_up(model)
        opened = f": {loaded.opening}" if loaded.opening is not None else ""
        log.info("%s is served by %s (%s)%s", model, loaded.manifest.reference, loaded.digest, opened)
        if before is not None:
            await self._put_away(before)

    async def retire(self, model: str, *, back_soon: str = "") -> None:
        """Serves the model no more; returns when it has drained and is closed. Raises `model_not_found`, `unavailable`.

        With `back_soon` its callers are told so, and to ask again, until it is served or given up.
        """
        served = self.get(model)
        del self._served[model]
        if back_soon:
            opening = served.loaded.opening
            self.away[model] = Away(back_soon, opening.whole_s if opening is not None else _BACK_S)
        log.info("%s is no longer served%s", model, f": {back_soon}" if back_soon else "")
        await self._put_away(served)

    def give_up(self, model: str) -> None:
        """A model that was to come back, or was unloaded, is no longer told as such; nothing happens for any other."""
        self.away.pop(model, None)
        self.unloaded.discard(model)

    def get(self, model: str, version: str = "") -> Served:
        """Raises FoothillError `model_not_found`, naming what is served, or `unavailable` for one that comes.

        `version` empty: whichever it is.
        """
        served = self._served.get(model)
        if served is None:
            raise self._absent(model)
        if version and version != served.loaded.manifest.version:
            raise FoothillError(
                "model_not_found",
                f"Model {model} is served in version {served.loaded.manifest.version}, not {version[:40]!r}. "
                f"Leave the version out of the path to take what is served.",
            )
        return served

    def _absent(self, model: str) -> FoothillError:
        """A model that comes, or comes back, is not answered with a word that callers take for the last one."""
        away = self.away.get(model)
        if away is not None:
            said = f"Model {model} is away for a moment: {away.why} Ask again."
            return FoothillError("unavailable", said, retry_after_s=away.back_after_s)
        if model in self.expected and model not in self.unloaded:
            return FoothillError("unavailable", f"Model {model} comes up. Ask again.", retry_after_s=_BACK_S)
        known = ", ".join(sorted(self._served)) or "none yet"
        return FoothillError("model_not_found", f"Model {model[:80]!r} is not served here. Served: {known}.")

    def reports(self) -> dict[str, ServedReport]:
        return {
            model: ServedReport(
                digest=served.loaded.digest,
                bundle=served.name,
                stratum=served.loaded.stratum,
                artifact=served.loaded.artifact.file,
                provider=served.loaded.engine.provider,
                in_flight=served.in_flight,
            )
            for model, served in self._served.items()
        }

    def load(self) -> LoadFigures:
        in_flight = sum(served.in_flight for served in self._served.values())
        return LoadFigures(in_flight, self._queue_ms, self._service_ms)

    def note(self, queue_ms: float, service_ms: float, count: int = 1) -> None:
        """Takes so many answered requests, with their mean times, into the recent means."""
        before = _MEMORY**count
        self._queue_ms = before * self._queue_ms + (1 - before) * queue_ms
        self._service_ms = before * self._service_ms + (1 - before) * service_ms

    def looked(self, *, strained: bool) -> None:
        """A look at the machine, which counts for all that are served."""
        for served in self._served.values():
            self.meters.of(served.loaded.digest).looked(strained=strained)

    async def close(self) -> None:
        """Retires every model."""
        served, self._served = list(self._served.values()), {}
        await asyncio.gather(*(self._put_away(one) for one in served), *self._closing)

    def _batcher(self, loaded: LoadedModel) -> Batcher:
        meter, rule = self.meters.of(loaded.digest), loaded.artifact.confidence
        read = loaded.read_each
        return Batcher(
            meter.running(loaded.run),
            loaded.times,
            name=loaded.manifest.model,
            batches=loaded.batches,
            turns=self._turns,
            lanes=self._lanes if loaded.engine.concurrent else 1,
            read=meter.reading(read, rule.threshold) if rule is not None else read,
            interrupt=loaded.interrupt,
            max_waiting=self._max_waiting,
            clock=self._clock,
        )

    def _put_away(self, served: Served) -> Coroutine[Any, Any, None]:
        """Draining goes on when the one who asked for it is cancelled: nobody else would close the model."""
        closing = asyncio.get_running_loop().create_task(served.close(self._drain_s))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return _shielded(closing)


async def _shielded(task: asyncio.Task[None]) -> None:
    await asyncio.shield(task)
