"""The routes that tell of the server and its models, and change nothing."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.oip import IndexQuestion
from runtime.links.http.bodies import read_small
from runtime.links.process.telemetry import Telemetry
from runtime.serving import metadata
from runtime.serving.models.hosting import ModelHost, Served
from runtime.serving.models.statistics import ModelStatistics, Statistics


class Facts:
    def __init__(self, host: ModelHost, *, node: str, tier: str, telemetry: Telemetry) -> None:
        self._host = host
        self._node = node
        self._tier = tier
        self._telemetry = telemetry

    def routes(self) -> list[web.RouteDef]:
        routes = [
            web.get("/healthz", self.health),
            web.get("/metrics", self.metrics),
            web.get("/v2", self.server),
            web.get("/v2/", self.server),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            web.get("/v2/models/stats", self.every_statistics),
            web.post("/v2/repository/index", self.index),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                web.get(model, self.model),
                web.get(f"{model}/ready", self.model_ready),
                web.get(f"{model}/config", self.config),
                web.get(f"{model}/stats", self.statistics),
            ]
        return routes

    async def health(self, _: web.Request) -> web.Response:
        """Alive, and what is served: 200 whenever the process answers at all."""
        return _json(
            {
                "status": "ok",
                "node": self._node,
                "tier": self._tier,
                "ready": self._host.ready,
                "models": self._host.reports(),
            }
        )

    async def metrics(self, _: web.Request) -> web.Response:
        return self._telemetry.metrics_response()

    async def server(self, _: web.Request) -> web.Response:
        return _json(metadata.server())

    async def live(self, _: web.Request) -> web.Response:
        return _json({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        if not self._host.ready:
            missing = ", ".join(self._host.missing) or "any model"
            raise FoothillError("unavailable", f"Not ready: no bundle is loaded for {missing}.")
        return _json({"ready": True})

    async def model(self, request: web.Request) -> web.Response:
        return _json(metadata.model(self._served(request)))

    async def model_ready(self, request: web.Request) -> web.Response:
        self._served(request)
        return _json({"ready": True})

    async def config(self, request: web.Request) -> web.Response:
        return _json(metadata.config(self._served(request)))

    async def statistics(self, request: web.Request) -> web.Response:
        return _json(Statistics([_statistics(self._served(request))]))

    async def every_statistics(self, _: web.Request) -> web.Response:
        return _json(Statistics([_statistics(served) for served in self._host.models.values()]))

    async def index(self, request: web.Request) -> web.Response:
        """The repository index; the body may ask for the ready models only."""
        body = await read_small(request)
        try:
            question = msgspec.json.decode(body or b"{}", type=IndexQuestion)
        except UNREADABLE as error:
            raise FoothillError("bad_request", f'The body is neither empty nor {{"ready": true}}: {error}.') from error
        return _json(metadata.index(self._host, only_ready=question.ready))

    def _served(self, request: web.Request) -> Served:
        return self._host.get(request.match_info["model"], request.match_info.get("version", ""))


def _statistics(served: Served) -> ModelStatistics:
    return served.statistics.with_runs(served.batcher.schedule.sound_runs)


def _json(content: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")
