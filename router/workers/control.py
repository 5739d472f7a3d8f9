"""The control process of a router: it hears the fleet, keeps late answers, and counts for all of its workers."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from contracts.deadlines import Deadline
from contracts.messages import Audit
from router.budgets import Budgets
from router.health import Event, leading_to
from router.nodes import Nodes
from router.results import Results
from router.tries import Call
from router.workers.board import Board
from router.workers.counts import Family, counted, merged
from router.workers.frames import (
    Alive,
    Audited,
    Channel,
    Count,
    Counted,
    Down,
    Kept,
    Lease,
    Probed,
    Promise,
    Ready,
    RoundTrips,
    Spend,
    Take,
    Taken,
    Up,
)
from router.workers.rates import Rates
from runtime.links.process.within import within

log = logging.getLogger(__name__)

COUNT_S = 2.0
"""For so long metrics of a worker are waited for."""


class Worker:
    """One that runs. `alive_s` is when it was last heard of."""

    def __init__(self, channel: Channel[Down, Up], now_s: float) -> None:
        self.channel = channel
        self.url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.alive_s = now_s
        self.waiting: dict[int, asyncio.Future[tuple[Family, ...]]] = {}


class Control:
    """`board` takes what is known of nodes, `rates` keep what tenants may ask for. `nodes` are those
    that are probed. `broker` says whether it is connected; None without one. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        registry: CollectorRegistry,
        nodes: Nodes,
        broker: Callable[[], bool | None],
        clock: Callable[[], float],
    ) -> None:
        self._nodes = nodes
        self.board = Board(broker, self.tell)
        self.rates = Rates()
        self._registry = registry
        self._clock = clock
        self._results: Results | None = None
        self._budgets: Budgets | None = None
        self._publish_audit: Callable[[Audit], None] | None = None
        self._heard: Mapping[type[Up], Callable[[Worker, Any], None]] = {
            Ready: self._is_ready,
            Alive: self._is_alive,
            Audited: self._audited,
            RoundTrips: self._measured,
            Lease: self._leases,
            Take: self._takes,
            Spend: self._spends,
            Promise: self._promises,
            Counted: self._is_counted,
        }
        self._workers: set[Worker] = set()
        self._questions = itertools.count()

    def keeps(self, results: Results, budgets: Budgets, publish_audit: Callable[[Audit], None] | None) -> None:
        """Late answers and what tenants have spent; audits go there."""
        self._results, self._budgets, self._publish_audit = results, budgets, publish_audit

    def probed(self, node: str, event: Event, rtt_ms: float | None) -> None:
        """As `router.probes.Told`."""
        self.tell(Probed(node, event, rtt_ms))

    def tell(self, message: Down, *, but: Worker | None = None) -> None:
        """All workers."""
        payload = msgspec.msgpack.encode(message)
        for worker in self._workers:
            if worker is not but:
                worker.channel.send_encoded(payload)

    def met(self, channel: Channel[Down, Up]) -> Worker:
        """A worker that was set up: it is told all that is known, and from now on what is new."""
        worker = Worker(channel, self._clock())
        self._workers.add(worker)
        channel.send(self.board.whole())
        for node in self._nodes.all():
            for event in leading_to(node.health.state) if node.health is not None else ():
                channel.send(Probed(node.name, event, None))
        return worker

    async def hear(self, worker: Worker) -> None:
        """Until it is gone. Raises `router.workers.frames.Broken`."""
        try:
            while True:
                self._take(worker, await worker.channel.receive())
        finally:
            self._workers.discard(worker)
            for waiting in worker.waiting.values():
                waiting.cancel()

    def _take(self, worker: Worker, said: Up) -> None:
        worker.alive_s = self._clock()
        self._heard[type(said)](worker, said)

    def _is_ready(self, worker: Worker, said: Ready) -> None:
        worker.url.set_result(said.url)

    def _is_alive(self, worker: Worker, said: Alive) -> None:
        """That it was heard is all."""

    def _audited(self, worker: Worker, said: Audited) -> None:
        if self._publish_audit is not None:
            self._publish_audit(said.audit)

    def _measured(self, worker: Worker, said: RoundTrips) -> None:
        self.tell(said, but=worker)

    def _leases(self, worker: Worker, said: Lease) -> None:
        worker.channel.send(self.rates.lease(said, self._clock()))

    def _takes(self, worker: Worker, said: Take) -> None:
        may = self._budgets is not None and self._budgets.take(said.tenant, said.allowance, said.cost)
        worker.channel.send(Taken(said.question, may))

    def _spends(self, worker: Worker, said: Spend) -> None:
        if self._budgets is not None:
            self._budgets.spend(said.tenant, said.allowance, said.cost)

    def _promises(self, worker: Worker, said: Promise) -> None:
        """The worker has room for it again as soon as it does not wait here any more."""
        call = Call(said.request, said.terms, Deadline(0.0), said.model, said.tenant)
        kept = Kept(said.request.size)
        promised = self._results is not None and self._results.promise(call, done=lambda: worker.channel.send(kept))
        if not promised:
            worker.channel.send(kept)
        worker.channel.send(Taken(said.question, promised))

    def _is_counted(self, worker: Worker, said: Counted) -> None:
        waiting = worker.waiting.pop(said.question, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(said.families)

    async def metrics(self, _: web.Request) -> web.Response:
        """Of all processes, as one. A worker that does not tell its own in time is left out, and counted."""
        told = await asyncio.gather(*(self._counted(worker) for worker in [*self._workers]))
        registry = CollectorRegistry()
        registry.register(_Merged(merged([counted(self._registry), *(each for each in told if each is not None)])))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _counted(self, worker: Worker) -> tuple[Family, ...] | None:
        question = next(self._questions)
        told = worker.waiting[question] = asyncio.get_running_loop().create_future()
        worker.channel.send(Count(question))
        try:
            return await within(told, COUNT_S)
        except asyncio.TimeoutError:
            log.warning("a worker did not tell its metrics in %.0f s: they are not among those of the router", COUNT_S)
            return None
        except asyncio.CancelledError:
            if told.cancelled() and worker not in self._workers:
                return None  # it is gone
            raise
        finally:
            worker.waiting.pop(question, None)


class _Merged(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics
