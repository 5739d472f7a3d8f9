"""The HTTP routes of a server of models: the same for an edge node and for the cloud tier."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import Gauge

from contracts import headers
from runtime.links.access.admission import Admission, admission_middleware
from runtime.links.escalation.holder import Holder
from runtime.links.http.accounts import Accounts
from runtime.links.http.errors import error_middleware
from runtime.links.http.exchanges import Clock
from runtime.links.http.hot_routes import HOT_ROUTES, HotRoutes, Route
from runtime.links.http.oip_errors import oip_error_middleware
from runtime.links.http.through_aiohttp import handler
from runtime.links.http.timed import timing_middleware
from runtime.links.process.loop_lag import LoopLag
from runtime.links.process.telemetry import Telemetry
from runtime.serving import unserved
from runtime.serving.admin import Admin
from runtime.serving.answering.answers import Answers, Spools
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.answering.swift import Swift
from runtime.serving.answering.work import Infer, Predict, Work
from runtime.serving.answering.workers import Workers
from runtime.serving.facts import Facts
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.metrics import ModelMetrics
from runtime.serving.repository import Repository

INFER, INFER_VERSION = "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"
PREDICT = "/v1/predict/{model}"


def create_app(
    host: ModelHost,
    settings: ServingSettings,
    *,
    holder: Holder | None,
    telemetry: Telemetry,
    repository: Repository | None = None,
    admission: Admission | None = None,
    spool: Spools | None = None,
    clock: Clock = time.monotonic,
    wall: Clock = time.time,
) -> web.Application:
    """`holder` settles the requests of callers that no other hop holds; without one they are answered as they are.
    Without `admission` nobody is asked who calls; without `spool` what the cloud should have answered is not kept.

    The caller keeps `host` and closes it after the application. `clock` is that of `host` and `holder`.
    """
    workers = Workers(threads=settings.decode_threads, clock=clock)
    rim = settings.rim(telemetry, clock)
    lag = LoopLag()

    def route(pattern: str, name: str, work: Work) -> Route:
        answers = Answers(work, host, settings, workers, holder, clock, wall, lag=lag, admission=admission, spool=spool)
        account = Accounts(name, rim)
        story = partial(account.tell, answers.answer)
        if name != "infer":
            return Route("POST", pattern, story)
        swift = Swift(answers, account, host, holder, admission, clock, wall, max_body_bytes=settings.max_body_bytes)
        return Route("POST", pattern, story, swift.prepare)

    hot = [
        route(INFER, "infer", Infer()),
        route(INFER_VERSION, "infer", Infer()),
        route(PREDICT, "predict", Predict(settings)),
    ]
    telemetry.registry.register(ModelMetrics(host))
    late = Gauge("foothill_loop_lag_seconds", "How late the event loop was of late", registry=telemetry.registry)
    late.set_function(lambda: lag.seconds)
    app = web.Application(
        middlewares=[
            timing_middleware(clock),
            _stamped(settings),
            oip_error_middleware,
            error_middleware(settings.node),
            *([admission_middleware(admission, asking=(PREDICT, INFER, INFER_VERSION))] if admission else []),
        ]
    )
    app[HOT_ROUTES] = HotRoutes(hot)
    app.add_routes([web.post(route.pattern, handler(route.story)) for route in hot])
    app.add_routes(Facts(host, node=settings.node, tier=settings.tier, telemetry=telemetry).routes())
    app.add_routes([*Admin(repository, settings.admin_token).routes(), *unserved.routes()])

    async def live(_: web.Application) -> AsyncIterator[None]:
        lag.start()
        yield
        lag.stop()
        workers.close()

    app.cleanup_ctx.append(live)
    return app


def _stamped(settings: ServingSettings) -> Middleware:
    """Puts node and tier on every answer, errors too."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if not answer.prepared:
            answer.headers.setdefault(headers.NODE, settings.node)
            answer.headers.setdefault(headers.TIER, settings.tier)
        return answer

    return middleware
