"""The router's HTTP routes: those of a server of models, and where to find one."""

from __future__ import annotations

import random
from collections.abc import Callable

from aiohttp import web

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.leases import RouteRequest
from contracts.timing import TOTAL
from router import explain, leases
from router.answers import decoded, json_answer, settled_answer
from router.calls import Calls
from router.client_address import Address, parse_address
from router.config import Config
from router.facts import Facts
from router.metrics import RouterMetrics
from router.nodes import Nodes
from router.proxy import Proxy
from router.tickets import Tickets
from runtime.links.access.admission import Admission, admission_middleware
from runtime.links.access.grants import grant_of
from runtime.links.escalation.holder import Holder
from runtime.links.http.errors import error_middleware
from runtime.links.http.oip_errors import oip_error_middleware
from runtime.links.http.timed import timing_middleware
from runtime.links.process.telemetry import Telemetry

PART = "router"
REDIRECT = "foothill-redirect"
"""The preference (RFC 7240) with which a plain client asks to be sent to a node instead of being proxied."""


def create_app(
    routes: Routes, facts: Facts, *, name: str, clock: Callable[[], float], admission: Admission | None = None
) -> web.Application:
    """Without `admission` nobody is asked who he is."""
    asking = [admission_middleware(admission)] if admission is not None else []
    app = web.Application(middlewares=[timing_middleware(clock), oip_error_middleware, error_middleware(name), *asking])
    app.add_routes(routes.routes())
    app.add_routes(facts.routes())
    return app


class Routes:
    """The routes that send a request somewhere, or say where it would go. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        config: Config,
        *,
        calls: Calls,
        proxy: Proxy,
        holder: Holder,
        nodes: Nodes,
        telemetry: Telemetry,
        metrics: RouterMetrics,
        rng: random.Random,
        clock: Callable[[], float],
        tickets: Tickets | None = None,
    ) -> None:
        self._config = config
        self._tickets = tickets
        self._calls = calls
        self._proxy = proxy
        self._holder = holder
        self._nodes = nodes
        self._telemetry = telemetry
        self._metrics = metrics
        self._rng = rng
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/predict/{model}", self.predict),
            web.post("/v2/models/{model}/infer", self.infer),
            web.post("/v2/models/{model}/versions/{version}/infer", self.infer),
            web.post("/v1/route", self.route),
            web.get("/v1/explain", self.explain),
        ]

    async def predict(self, request: web.Request) -> web.Response:
        return await self._counted(request, "predict")

    async def infer(self, request: web.Request) -> web.Response:
        return await self._counted(request, "infer")

    async def route(self, request: web.Request) -> web.Response:
        """A lease for the caller's place."""
        terms, deadline = self._calls.terms(request)
        asked = decoded(await self._calls.read_question(request, deadline), RouteRequest)
        grant = grant_of(request)
        grant.check_model(asked.model)
        place = asked.place or self._calls.place(self._calls.address(request))
        lease = leases.give(
            asked,
            terms,
            place,
            self._nodes,
            cloud=self._config.cloud_urls[0] if self._holder.may_ask_cloud(terms) else "",
            ttl_s=self._config.lease_ttl_s,
            now_s=self._clock(),
            rng=self._rng,
        )
        self._metrics.lease(placed=place is not None)
        return json_answer(self._tickets.attach(lease, terms, tenant=grant.tenant) if self._tickets else lease)

    async def explain(self, request: web.Request) -> web.Response:
        """Why a caller would go where: `?model=M[&ip=ADDRESS][&residency=REGION,…]`."""
        model = request.query.get("model", "")
        if not model:
            raise FoothillError("bad_request", "Name a model: GET /v1/explain?model=digits&ip=192.0.2.7.")
        grant_of(request).check_model(model)
        address = self._asked_address(request)
        asked = request.query.get("residency", "")
        residency = headers.parse_terms({headers.RESIDENCY: asked}).residency if asked else ()
        place = self._calls.place(address)
        return json_answer(
            explain.Explanation(
                model=model,
                router=self._config.name,
                router_region=self._config.region,
                address=str(address or ""),
                place=place,
                residency=residency,
                cloud=self._holder.may_ask_cloud(Terms(residency=residency)),
                cloud_region=self._config.cloud_region,
                candidates=explain.candidates(self._nodes, model, residency, place, self._clock()),
                unidentified=tuple(self._nodes.unidentified()),
            )
        )

    async def _counted(self, request: web.Request, route: str) -> web.Response:
        """One request for an answer, counted however it ends."""
        started_s = self._clock()
        with self._telemetry.in_flight(PART):
            try:
                return await self._answered(request, route)
            except FoothillError as error:
                phases = {TOTAL: (self._clock() - started_s) * 1000.0}
                self._observe(route, request.match_info["model"], "none", error.code, error.status, phases)
                raise

    async def _answered(self, request: web.Request, route: str) -> web.Response:
        """The request's own time starts when its body is there: what came before was the network's."""
        terms, deadline = self._calls.terms(request)
        redirect = self._redirected(request, terms)
        if redirect is not None:
            return redirect
        call = await self._calls.read(request, terms, deadline)
        started_s = self._clock()
        settled = await self._proxy.answer(call)
        phases = {**settled.phases, TOTAL: (self._clock() - started_s) * 1000.0}
        self._observe(route, call.model, settled.tier, settled.reason, settled.answer.status, phases)
        return settled_answer(settled, phases, terms.request_id)

    def _redirected(self, request: web.Request, terms: Terms) -> web.Response | None:
        """Where the caller prefers it and a node is in reach: `307` to the best node for its place."""
        wishes = ",".join(request.headers.getall("Prefer", ())).lower().split(",")
        if REDIRECT not in (wish.strip() for wish in wishes):
            return None
        place = self._calls.place(self._calls.address(request))
        model = request.match_info["model"]
        ranked = leases.ranking(model, terms, place, self._nodes, now_s=self._clock(), rng=self._rng)
        if not ranked:
            return None
        self._metrics.lease(placed=place is not None)
        target = ranked[0].node.identity.url.rstrip("/") + request.rel_url.raw_path_qs
        return web.Response(status=307, headers={"Location": target, "Preference-Applied": REDIRECT})

    def _asked_address(self, request: web.Request) -> Address | None:
        if "ip" not in request.query:
            return self._calls.address(request)
        address = parse_address(request.query["ip"])
        if address is None:
            raise FoothillError("bad_request", f"ip={request.query['ip'][:80]!r} is not an IP address.")
        return address

    def _observe(self, route: str, model: str, tier: str, reason: str, status: int, phases: dict[str, float]) -> None:
        """A model that nobody serves is no label: callers could make up any number of them."""
        label = model if status == 200 or self._nodes.serving(model) else ""
        self._telemetry.observe(
            part=PART, route=route, model=label, tier=tier, reason=reason, status=status, phases_ms=phases
        )
