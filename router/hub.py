"""What a router's process leaves to whoever speaks for the whole router: itself, or the control process of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

from contracts.rates import Rate
from router.budgets import Purse
from router.discovery import Discovery
from router.late_results import LateResults
from router.places.client_address import Address
from router.results import Results
from router.tries import Call
from runtime.links.access.tokens import Limit
from runtime.links.process.telemetry import Telemetry

NoteRoundTrips = Callable[[Address, Mapping[str, float]], None]
METRICS, RESULT = "/metrics", "/v1/results/{request_id}"


class Hub(Protocol):
    """`asks`: of the routes' paths, those whose handlers see to it that the caller is asked who he is."""

    @property
    def asks(self) -> tuple[str, ...]: ...

    @property
    def broker_connected(self) -> bool | None:
        """None without a broker."""
        ...

    def limit_of(self, name: str, per_s: float) -> Limit:
        """What the tenant `name` may send to the whole router, a second."""
        ...

    @property
    def purse(self) -> Purse:
        """What tenants may cost through the whole router."""
        ...

    def routes(self) -> list[web.RouteDef]:
        """Late results, and the metrics of the whole router."""
        ...

    async def promise(self, call: Call) -> bool:
        """As `router.results.Results.promise`, once whoever answers for the whole router has it."""
        ...

    def share_round_trips(self, address: Address, measured_ms: Mapping[str, float]) -> None:
        """What a caller has measured, and told this process."""
        ...

    def hear_round_trips(self, note: NoteRoundTrips) -> None:
        """What callers have told the others."""
        ...


class Alone:
    """The Hub of a router that is one process."""

    asks: tuple[str, ...] = ()

    def __init__(self, discovery: Discovery | None, results: Results, telemetry: Telemetry, purse: Purse) -> None:
        self.purse = purse
        self._discovery = discovery
        self._results = results
        self._late = LateResults(results)
        self._telemetry = telemetry

    @property
    def broker_connected(self) -> bool | None:
        return self._discovery.connected if self._discovery is not None else None

    def limit_of(self, name: str, per_s: float) -> Limit:
        return Rate(per_s)

    def routes(self) -> list[web.RouteDef]:
        return [web.get(RESULT, self._late.result), web.get(METRICS, self._metrics)]

    async def promise(self, call: Call) -> bool:
        return self._results.promise(call)

    def share_round_trips(self, address: Address, measured_ms: Mapping[str, float]) -> None:
        """There is nobody else."""

    def hear_round_trips(self, note: NoteRoundTrips) -> None:
        """As above."""

    async def _metrics(self, _: web.Request) -> web.Response:
        return self._telemetry.metrics_response()
