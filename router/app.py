"""The router's HTTP routes: those of a server of models, and where to find one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from aiohttp import web

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.leases import RouteRequest
from contracts.places import Place
from router import explain, leases
from router.answers import decoded, json_answer
from router.calls import Calls
from router.config import Config
from router.facts import Facts
from router.hub import Hub
from router.metrics import RouterMetrics
from router.nodes import Nodes
from router.places.client_address import Address, parse_address
from router.places.located import Caller
from router.places.round_trips import RoundTrips
from router.places.surroundings import Surroundings
from router.seeing.witness import Witness, seeing_middleware, tell_trace
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

_COUNT = re.compile(r"[0-9]{1,12}")


def create_app(
    routes: Routes,
    facts: Facts,
    stories: Stories,
    hub: Hub,
    *,
    name: str,
    clock: Callable[[], float],
    witness: Witness,
    admission: Admission | None = None,
) -> web.Application:
    """Without `admission` nobody is asked who he is."""
    asking = [admission_middleware(admission, asking=(*ASKING, *hub.asks))] if admission is not None else []
    around = [seeing_middleware(witness, ASKING, clock), timing_middleware(clock)]
    app = web.Application(middlewares=[*around, oip_error_middleware, error_middleware(name), *asking])
    app.on_response_prepare.append(tell_trace)
    hot = stories.routes()
    app[HOT_ROUTES] = HotRoutes(hot)
    app.add_routes([web.post(route.pattern, handler(route.story)) for route in hot])
    app.add_routes(routes.routes())
    app.add_routes(facts.routes())
    app.add_routes(hub.routes())
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
        hub: Hub,
        tickets: Tickets | None = None,
    ) -> None:
        self._config = config
        self._tickets = tickets
        self._hub = hub
        self._calls = calls
        self._holder = holder
        self._nodes = nodes
        self._surroundings = Surroundings(nodes, rng)
        self._round_trips = RoundTrips()
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
        caller = self._calls.caller(self._calls.address(incoming), asked.place)
        self._note(caller, asked)
        lease = leases.give(
            asked,
            terms,
            caller,
            self._surroundings,
            self._round_trips,
            cloud=self._config.cloud_urls[0] if self._holder.may_ask_cloud(terms) else "",
            ttl_s=self._config.lease_ttl_s,
            now_s=self._clock(),
            rng=self._rng,
        )
        self._metrics.lease(placed=caller.place is not None)
        return json_answer(self._tickets.attach(lease, terms, tenant=grant.tenant) if self._tickets else lease)

    def node_for(self, request: Incoming, terms: Terms) -> str | None:
        """The URL of the best node for the place of a caller; None where none is in reach."""
        caller = self._calls.caller(self._calls.address(request), None)
        ranked = leases.ranking(
            request.params["model"],
            terms,
            caller,
            self._surroundings,
            self._round_trips,
            now_s=self._clock(),
            rng=self._rng,
            version=request.params.get("version", ""),
        )
        if not ranked:
            return None
        self._metrics.lease(placed=caller.place is not None)
        return ranked[0].node.identity.url

    async def explain(self, request: web.Request) -> web.Response:
        """Why a caller would go where:
        `?model=M[&ip=ADDRESS][&lat=LAT&lon=LON][&residency=REGION,…][&capabilities=NAME,…]
        [&deadline_ms=MS][&bytes=COUNT]`."""
        model = request.query.get("model", "")
        if not model:
            raise FoothillError("bad_request", "Name a model: GET /v1/explain?model=digits&ip=192.0.2.7.")
        grant_of(request).check_model(model)
        asked = _asked(request, model)
        caller = self._asked_caller(request)
        found = explain.candidates(self._nodes, asked, caller, self._round_trips, self._clock())
        located = caller.located
        return json_answer(
            explain.Explanation(
                model=model,
                router=self._config.name,
                router_region=self._config.region,
                address=str(caller.address or ""),
                place=caller.place,
                place_error_km=located.error_km if located else None,
                place_source=located.source if located else "",
                residency=asked.residency,
                capabilities=asked.capabilities,
                deadline_ms=asked.deadline_ms,
                size_bytes=asked.size_bytes,
                cloud=self._holder.may_ask_cloud(Terms(residency=asked.residency)),
                cloud_region=self._config.cloud_region,
                leased_to=explain.best_leased(found),
                proxied_to=explain.best_proxied(found),
                candidates=found,
                unidentified=tuple(self._nodes.unidentified()),
            )
        )

    def _note(self, caller: Caller, asked: RouteRequest) -> None:
        if asked.measured_ms and caller.address is not None:
            self.note_round_trips(caller.address, asked.measured_ms)
            self._hub.share_round_trips(caller.address, asked.measured_ms)

    def note_round_trips(self, address: Address, measured_ms: Mapping[str, float]) -> None:
        """What a caller has measured: to nodes that are known."""
        self._round_trips.note(address, measured_ms, (node.name for node in self._nodes.all()))

    def _asked_caller(self, request: web.Request) -> Caller:
        """Who is asked about: the address and the place that are named, else whoever asks. At a named place without an
        address nobody stands, so that no network's round trips count."""
        place = _asked_place(request)
        if "ip" in request.query:
            address = parse_address(request.query["ip"])
            if address is None:
                raise FoothillError("bad_request", f"ip={request.query['ip'][:80]!r} is not an IP address.")
            return self._calls.caller(address, place)
        return self._calls.caller(None if place else self._calls.address(Through(request)), place)


def _asked(request: web.Request, model: str) -> explain.Asked:
    """In the words and within the bounds of the headers that a request would have."""
    told = {headers.RESIDENCY: "residency", headers.DEADLINE_MS: "deadline_ms", headers.CAPABILITIES: "capabilities"}
    sent = {name: request.query[key] for name, key in told.items() if request.query.get(key)}
    terms, size = headers.parse_terms(sent), request.query.get("bytes", "0")
    if not _COUNT.fullmatch(size):
        raise FoothillError("bad_request", f"bytes={size[:40]!r} is no number of bytes: write bytes=600000.")
    return explain.Asked(model, terms.residency, terms.deadline_ms, int(size), terms.capabilities)


def _asked_place(request: web.Request) -> Place | None:
    told = request.query.get("lat"), request.query.get("lon")
    if told == (None, None):
        return None
    try:
        return Place(float(told[0] or ""), float(told[1] or ""))
    except ValueError as error:
        raise FoothillError(
            "bad_request",
            f"lat={str(told[0])[:40]!r} and lon={str(told[1])[:40]!r} are no place: give both, in degrees, latitude in "
            "-90..90 and longitude in -180..180.",
        ) from error
