"""A worker's end of the link to its control process, which hears the fleet and speaks for the whole router."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from contracts.errors import FoothillError
from contracts.messages import Audit
from router.budgets import Purse
from router.hub import METRICS, RESULT, NoteRoundTrips
from router.nodes import Nodes
from router.places.client_address import Address
from router.results import MOST, MOST_BYTES
from router.tries import Call
from router.workers.counts import counted
from router.workers.frames import (
    Alive,
    Audited,
    Channel,
    Count,
    Counted,
    Down,
    Kept,
    Lease,
    Leased,
    Probed,
    Promise,
    Ready,
    RoundTrips,
    Setup,
    Spend,
    Take,
    Taken,
    Told,
    Up,
)
from router.workers.rates import LeasedRate
from router.workers.relay import Relay
from runtime.links.access.grants import Allowance
from runtime.links.escalation.holder import Certificates
from runtime.links.process.telemetry import Telemetry
from runtime.links.process.within import within

log = logging.getLogger(__name__)

ALIVE_S = 1.0
_PROMISE_S = 1.0
"""For so long, and for half of the time that a caller has left, a promise is waited for."""


class Link:
    """`router.hub.Hub` of a worker: what it is told goes into its own tables. `hear` it until the other side is gone.

    Of what may wait for late answers, each worker has its share.
    """

    asks = (METRICS, RESULT)

    def __init__(
        self,
        channel: Channel[Up, Down],
        setup: Setup,
        nodes: Nodes,
        certificates: Certificates,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._nodes = nodes
        self._certificates = certificates
        self._telemetry = telemetry
        self._clock = clock
        self._relay = Relay(setup.control)
        self._workers = setup.workers
        self._questions = itertools.count()
        self._asked: dict[int, asyncio.Future[Leased | Taken]] = {}
        self._told: Mapping[type[Down], Callable[[Any], None]] = {
            Told: self._learn,
            Probed: self._probed,
            RoundTrips: self._measured,
            Count: self._count,
            Leased: self._answered,
            Taken: self._answered,
            Kept: self._kept,
        }
        self._most, self._most_bytes = max(1, MOST // setup.workers), MOST_BYTES // setup.workers
        self._promised = self._promised_bytes = 0
        self._asking: set[asyncio.Task[bool]] = set()
        self._note_round_trips: NoteRoundTrips | None = None
        self._broker_connected: bool | None = None

    @property
    def broker_connected(self) -> bool | None:
        return self._broker_connected

    def routes(self) -> list[web.RouteDef]:
        return [web.get(path, self._relay.handle) for path in self.asks]

    async def promise(self, call: Call) -> bool:
        """As `router.hub.Hub.promise`. Whoever is asked for it next knows of it: the control process has it. One
        that does not say so in time will have it all the same, and nobody is told."""
        size = call.request.size
        fits = self._promised < self._most and self._promised_bytes + size <= self._most_bytes
        if call.terms.escalation == "never" or not fits:
            return False
        self._promised += 1
        self._promised_bytes += size
        asking = asyncio.create_task(self._ask_promise(call))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        left_s = call.deadline.left_s(self._clock())
        try:
            return await within(asyncio.shield(asking), min(_PROMISE_S, left_s / 2))
        except asyncio.TimeoutError:
            return False

    def publish_audit(self, audit: Audit) -> None:
        self._channel.send(Audited(audit))

    def share_round_trips(self, address: Address, measured_ms: Mapping[str, float]) -> None:
        self._channel.send(RoundTrips(str(address), dict(measured_ms)))

    def hear_round_trips(self, note: NoteRoundTrips) -> None:
        self._note_round_trips = note

    def limit_of(self, name: str, per_s: float) -> LeasedRate:
        """What one tenant may ask of the whole router."""
        return LeasedRate(name, per_s, self._workers, self._lease, self._clock)

    @property
    def purse(self) -> Purse:
        return self

    async def take(self, tenant: str, allowance: Allowance, cost: float) -> bool:
        """As `router.budgets.Purse.take`."""
        question = next(self._questions)
        taken: Taken = await self._ask(question, Take(question, tenant, allowance, cost))
        return taken.may

    def spend(self, tenant: str, allowance: Allowance, cost: float) -> None:
        """As `router.budgets.Purse.spend`."""
        if cost and allowance.limited:
            self._channel.send(Spend(tenant, allowance, cost))

    def ready(self, url: str) -> None:
        self._channel.send(Ready(url))

    async def live(self) -> None:
        """Signs of life, for ever."""
        while True:
            self._channel.send(Alive())
            await asyncio.sleep(ALIVE_S)

    async def hear(self) -> None:
        """Raises `router.workers.frames.Broken` once the control process is gone."""
        while True:
            told = await self._channel.receive()
            self._told[type(told)](told)

    def _measured(self, told: RoundTrips) -> None:
        if self._note_round_trips is not None:
            self._note_round_trips(ipaddress.ip_address(told.address), told.measured_ms)

    def _count(self, told: Count) -> None:
        self._channel.send(Counted(told.question, counted(self._telemetry.registry)))

    def _answered(self, told: Leased | Taken) -> None:
        asked = self._asked.pop(told.question, None)
        if asked is not None and not asked.done():
            asked.set_result(told)

    def _probed(self, told: Probed) -> None:
        node = self._nodes.get(told.node)
        if node is not None:
            node.put_probe(told.event, self._clock(), rtt_ms=told.rtt_ms)

    def _kept(self, told: Kept) -> None:
        self._promised -= 1
        self._promised_bytes -= told.body_bytes

    async def _ask(self, question: int, asking: Lease | Take | Promise) -> Any:
        """What the control process answers."""
        asked: asyncio.Future[Leased | Taken] = asyncio.get_running_loop().create_future()
        self._asked[question] = asked
        self._channel.send(asking)
        return await asked

    async def _lease(self, name: str, per_s: float, count: int) -> Leased:
        question = next(self._questions)
        leased: Leased = await self._ask(question, Lease(question, name, per_s, count))
        return leased

    async def _ask_promise(self, call: Call) -> bool:
        """A body that lies on disk goes over the socket too: the other side has its own."""
        request, question = call.request, next(self._questions)
        try:
            if request.spool is not None:
                body = b"".join([piece async for piece in request.spool.pieces()])
                request = msgspec.structs.replace(request, body=body, spool=None)
        except (OSError, FoothillError) as error:
            log.warning(
                "the body of %s is gone from the disk, and the cloud not asked: %s", call.terms.request_id, error
            )
            self._kept(Kept(request.size))
            return False
        taken: Taken = await self._ask(question, Promise(question, request, call.terms, call.model, call.tenant))
        return taken.may

    async def close(self) -> None:
        await self._relay.close()
        await self._channel.close()

    def _learn(self, told: Told) -> None:
        now_s = self._clock()
        self._broker_connected = told.broker
        for identity in told.identities:
            self._nodes.put_identity(identity)
        for status in told.statuses:
            self._nodes.put_status(status, now_s)
        for reported in told.reports:
            self._nodes.put_reported(reported)
        for load in told.loads:
            self._nodes.put_load(load, now_s)
        for certificate in told.certificates:
            self._certificates.put(certificate)
