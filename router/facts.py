"""The routes that tell of the router and of the models behind it, and change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import msgspec
from aiohttp import web

from contracts import oip
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.answers import decoded, json_answer, relayed_answer, understood
from router.calls import Calls
from router.hub import Hub
from router.nodes import Nodes
from router.proxy import Proxy
from runtime.links.escalation.holder import Holder
from runtime.links.http.errors import request_id_of
from runtime.links.http.through_aiohttp import Through

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")


class Health(msgspec.Struct, frozen=True):
    """`nodes` counts them by state; `broker` is None when none is configured."""

    status: str
    node: str
    tier: str
    nodes: dict[str, int]
    models: tuple[str, ...]
    broker: bool | None


class ModelVersions(msgspec.Struct, frozen=True):
    """What matters here of a model's metadata."""

    versions: tuple[str, ...]


class ModelStatistics(msgspec.Struct, frozen=True):
    model_stats: list[Any]


class Facts:
    def __init__(
        self,
        *,
        name: str,
        calls: Calls,
        proxy: Proxy,
        holder: Holder,
        nodes: Nodes,
        hub: Hub,
    ) -> None:
        self._name = name
        self._calls = calls
        self._proxy = proxy
        self._holder = holder
        self._nodes = nodes
        self._hub = hub

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self.health),
            web.get("/v2", self.server),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            web.get("/v2/models/stats", self.every_statistics),
            web.post("/v2/repository/index", self.index),
            web.post("/v2/repository/models/{model}/load", self.refuse_loading),
            web.post("/v2/repository/models/{model}/unload", self.refuse_loading),
            *(
                web.get(f"/v2/models/{{model}}{version}{about}", self.model)
                for version in ("", "/versions/{version}")
                for about in ("", "/ready", "/config", "/stats")
            ),
        ]

    async def health(self, _: web.Request) -> web.Response:
        states: dict[str, int] = {}
        for node in self._nodes.all():
            states[node.state] = states.get(node.state, 0) + 1
        models = tuple(sorted(self._nodes.models()))
        return json_answer(Health("ok", self._name, "router", states, models, self._hub.broker_connected))

    async def server(self, _: web.Request) -> web.Response:
        return json_answer(oip.ServerMetadata("foothill-router", _version(), EXTENSIONS))

    async def live(self, _: web.Request) -> web.Response:
        return json_answer({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Ready when there is somewhere to send a request: an online node, or a cloud."""
        online = any(node.state == "online" for node in self._nodes.all())
        if not online and not self._holder.may_ask_cloud(Terms()):
            raise FoothillError("unavailable", "Not ready: no node is online and no cloud_urls are configured.")
        return json_answer({"ready": True})

    async def model(self, request: web.Request) -> web.Response:
        """What a node, or the cloud, says of a model: metadata, readiness, configuration, statistics."""
        asked = request.match_info
        path, version = request.rel_url.raw_path_qs, asked.get("version", "")
        call = self._calls.question(Through(request), asked["model"], path, version)
        settled = await self._proxy.answer(call)
        return relayed_answer(settled.answer, request_id_of(request))

    async def every_statistics(self, request: web.Request) -> web.Response:
        """One upstream's statistics of each model that a node serves."""
        found: list[Any] = []
        for model in sorted(self._nodes.models()):
            settled = await self._proxy.answer(
                self._calls.question(Through(request), model, f"/v2/models/{model}/stats")
            )
            if settled.answer.status == 200:
                found += understood(settled.answer, ModelStatistics).model_stats
        return json_answer(ModelStatistics(found))

    async def index(self, request: web.Request) -> web.Response:
        """The repository index: what nodes report, together with what the cloud lists."""
        terms, deadline = self._calls.terms(Through(request))
        body = await self._calls.read_question(Through(request), deadline)
        only_ready = decoded(body or b"{}", oip.IndexQuestion).ready
        listed = [*await self._cloud_index(request, terms, deadline), *await self._node_index(request)]
        entries = united(listed)
        return json_answer([entry for entry in entries if entry.state == READY or not only_ready])

    async def refuse_loading(self, _: web.Request) -> web.Response:
        raise FoothillError(
            "forbidden",
            "A router loads no models. Roll a bundle out with `foothill fleet rollout start`, or ask a server itself.",
        )

    async def _node_index(self, request: web.Request) -> list[oip.IndexEntry]:
        """One entry a model and version; ready when one online node serves it."""
        told = await self._untold_versions(request)
        ready: dict[tuple[str, str], bool] = {}
        for model, nodes in self._nodes.models().items():
            for node in nodes:
                key = (model, node.models[model].rpartition("@")[2] or told.get(model, ""))
                ready[key] = ready.get(key, False) or node.state == "online"
        return [
            oip.IndexEntry(model, version, READY if up else UNAVAILABLE, "" if up else "its nodes are away")
            for (model, version), up in ready.items()
        ]

    async def _untold_versions(self, request: web.Request) -> dict[str, str]:
        """Asks for the versions that no report tells, by model: static nodes send none."""
        untold = [
            model for model, nodes in self._nodes.models().items() if not all(node.models[model] for node in nodes)
        ]
        versions = await asyncio.gather(*(self._version(request, model) for model in untold))
        return dict(zip(untold, versions, strict=True))

    async def _version(self, request: web.Request, model: str) -> str:
        """What an edge node says it serves; "" when none can be asked now."""
        try:
            settled = await self._proxy.answer(self._calls.question(Through(request), model, f"/v2/models/{model}"))
            if settled.tier != "edge" or settled.answer.status != 200:
                return ""
            return next(iter(understood(settled.answer, ModelVersions).versions), "")
        except FoothillError:
            return ""

    async def _cloud_index(self, request: web.Request, terms: Terms, deadline: Deadline) -> list[oip.IndexEntry]:
        """The cloud's own index; nothing when it cannot answer, since the nodes' part stands without it."""
        asked = self._calls.marked(Through(request), terms, "/v2/repository/index", b"{}")
        try:
            settled = await self._holder.ask_cloud(asked, terms, deadline, reason="index")
            return understood(settled.answer, list[oip.IndexEntry]) if settled.answer.status == 200 else []
        except FoothillError:
            return []


def united(listed: Iterable[oip.IndexEntry]) -> list[oip.IndexEntry]:
    """One entry a model and version, by name: ready where one of them is. Without a version only where none is told."""
    by_readiness = sorted(listed, key=lambda entry: entry.state == READY)
    entries = {(entry.name, entry.version): entry for entry in by_readiness}
    told = {name for name, version in entries if version}
    return [entry for (name, version), entry in sorted(entries.items()) if version or name not in told]


def _version() -> str:
    """The installed package's version; a source tree that is not installed has none."""
    try:
        return metadata.version("foothill")
    except metadata.PackageNotFoundError:
        return "0+source"
