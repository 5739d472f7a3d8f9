"""The router's HTTP routes: those of a server of models, and where to find one."""

from __future__ import annotations

import random
from collections.abc import Callable

from aiohttp import web

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.leases import RouteRequest
from router import explain, leases
from router.answers import decoded, json_answer
from router.calls import Calls
from router.client_address import Address, parse_address
from router.config import Config
from router.facts import Facts
from router.late_results import LateResults
from router.metrics import RouterMetrics
from router.nodes import Nodes
from router.stories import ASKING, Stories
from router.tickets import Tickets
from runtime.links.access.admission import Admission, admission_middleware
from runtime.links.access.grants import grant_of
from runtime.links.escalation.holder import Holder
from runtime.links.http.errors import error_middleware
from runtime.links.http.exchanges import Incoming
from runtime.links.http.hot_routes import HOT_ROUTES, HotRoutes
from runtime.links.http.oip_errors import oip_error_middleware
from runtime.links.http.through_aiohttp import Through, handler
from runtime.links.http.timed import timing_middleware


def create_app(
    routes: Routes,
    facts: Facts,
    stories: Stories,
    late: LateResults,
    *,
    name: str,
    clock: Callable[[], float],
    admission: Admission | None = None,
) -> web.Application:
    """Without `admission` nobody is asked who he is."""
    asking = [admission_middleware(admission, asking=ASKING)] if admission is not None else []
    app = web.Application(middlewares=[timing_middleware(clock), oip_error_middleware, error_middleware(name), *asking])
    hot = stories.routes()
    app[HOT_ROUTES] = HotRoutes(hot)
    app.add_routes([web.post(route.pattern, handler(route.story)) for route in hot])
    app.add_routes(routes.routes())
    app.add_routes(facts.routes())
    app.add_routes(late.routes())
    return app


class Routes:
    """The routes that say where a request would go. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        config: Config,
        *,
        calls: Calls,
        holder: Holder,
        nodes: Nodes,
        metrics: RouterMetrics,
        rng: random.Random,
        clock: Callable[[], float],
        tickets: Tickets | None = None,
    ) -> None:
        self._config = config
        self._tickets = tickets
        self._calls = calls
        self._holder = holder
        self._nodes = nodes
        self._metrics = metrics
        self._rng = rng
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/route", self.route), web.get("/v1/explain", self.explain)]

    async def route(self, request: web.Request) -> web.Response:
        """A lease for the caller's place."""
        incoming = Through(request)
        terms, deadline = self._calls.terms(incoming)
        asked = decoded(await self._calls.read_question(incoming, deadline), RouteRequest)
        grant = grant_of(request)
        grant.check_model(asked.model)
        place = asked.place or self._calls.place(self._calls.address(incoming))
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

    def node_for(self, request: Incoming, terms: Terms) -> str | None:
        """The URL of the best node for the place of a caller; None where none is in reach."""
        place = self._calls.place(self._calls.address(request))
        model = request.params["model"]
        ranked = leases.ranking(model, terms, place, self._nodes, now_s=self._clock(), rng=self._rng)
        if not ranked:
            return None
        self._metrics.lease(placed=place is not None)
        return ranked[0].node.identity.url

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

    def _asked_address(self, request: web.Request) -> Address | None:
        if "ip" not in request.query:
            return self._calls.address(Through(request))
        address = parse_address(request.query["ip"])
        if address is None:
            raise FoothillError("bad_request", f"ip={request.query['ip'][:80]!r} is not an IP address.")
        return address
