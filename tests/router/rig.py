"""Edge nodes and a cloud on port 0 that speak the protocol between hops, and do as a test tells them."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

import msgspec
from aiohttp import web

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.deadlines import Deadline
from contracts.headers import Terms
from contracts.messages import Audit, Certificate
from contracts.places import Place
from router.budgets import Book, Budgets, OwnPurse
from router.config import StaticNode
from router.fields import Fields
from router.metrics import RouterMetrics
from router.nodes import Nodes
from router.proxy import Proxy
from router.results import Results
from router.tries import Call, Tries
from runtime.links.access.hop import sign_hop, verify_hop
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.upstream import Request, Upstreams
from runtime.links.process.telemetry import Telemetry

HOP_KEY = b"h" * 32
STRATUM = "0" * 32
DUBLIN = Place(53.35, -6.26)
FRANKFURT, ASHBURN, TOKYO = Place(50.11, 8.68), Place(39.04, -77.49), Place(35.68, 139.69)


class Server:
    """One upstream. `status`, `confidence`, `hold`, `raw` and `output` steer its next answers; `seen` are the requests
    it got."""

    def __init__(self, name: str, tier: str, answer: str) -> None:
        self.name = name
        self.tier = tier
        self.answer = answer
        self.url = ""
        self.status = 200
        self.confidence: float | None = 0.99
        self.marked = True
        self.raw = self.output = b""
        self.hold: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.seen: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.bodies.append(await request.read())
        self.arrived.set()
        if self.hold is not None:
            await self._held()
        if self.status != 200:
            return self._refusal(request)
        if self.raw:
            return web.Response(body=self.raw)
        if request.method == "GET" or request.path == "/v2/repository/index":
            return self._fact(request)
        return self._answered(request)

    def hang_up(self) -> None:
        """Closes the connections on which requests came."""
        for seen in self.seen:
            if seen.transport is not None:
                seen.transport.close()

    async def _held(self) -> None:
        assert self.hold is not None
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _refusal(self, request: web.Request) -> web.Response:
        request_id = request.headers.get(headers.REQUEST_ID, "")
        codes = {400: "bad_image", 404: "model_not_found", 429: "rate_limited", 503: "overloaded"}
        told = {
            "code": codes.get(self.status, "internal"),
            "message": f"{self.name} says no",
            "source": self.name,
            "retryable": self.status >= 429,
            "request_id": request_id,
        }
        return web.json_response(told, status=self.status, headers={"Retry-After": "7"} if self.status == 503 else {})

    def _fact(self, request: web.Request) -> web.Response:
        own = {headers.REQUEST_ID: request.headers.get(headers.REQUEST_ID, "")}
        if request.path.endswith("/stats"):
            told = [{"name": request.path.split("/")[3], "node": self.name}]
            return web.json_response({"model_stats": told}, headers=own)
        if request.path == "/v2/repository/index":
            return web.json_response([{"name": "digits", "version": "9", "state": "READY"}], headers=own)
        return web.json_response({"name": request.path, "node": self.name, "versions": ["1"]}, headers=own)

    def _answered(self, request: web.Request) -> web.Response:
        request_id = request.headers.get(headers.REQUEST_ID, "")
        known = verify_hop(HOP_KEY, request.headers.get(headers.HOP), request_id, time.time()) == "router"
        told = {
            headers.REQUEST_ID: request_id,
            headers.TIER: self.tier,
            headers.NODE: self.name,
            headers.REASON: "unsettled" if known and self.marked else "confident",
            headers.MODEL: "digits-edge@1",
            headers.DIGEST: "sha256:" + "a" * 64,
            headers.STRATUM: STRATUM,
            headers.CERTIFIED: "true",
            headers.SERVER_TIMING: "queue;dur=0.05, infer;dur=0.15, total;dur=0.25",
        }
        if self.confidence is not None:
            told[headers.CONFIDENCE] = repr(self.confidence)
        if known and self.marked:
            told |= {headers.ANSWER: self.answer, headers.LOAD: "in_flight=1;queue_ms=0.5;service_ms=2.0"}
        body = {
            "task": "classification",
            "label": self.answer,
            "reason": "unsettled",
            "tier": self.tier,
            "node": self.name,
        }
        if self.output and request.method == "POST":
            return web.Response(body=self.output, content_type="application/octet-stream", headers=told)
        return web.json_response(body, headers=told)


class Start(Protocol):
    async def __call__(self, name: str, *, tier: str = "edge", answer: str = "3") -> Server: ...


class BuildRig(Protocol):
    def __call__(
        self,
        nodes: list[StaticNode],
        cloud_urls: list[str],
        *,
        cloud_region: str = "",
        audit_rate: float = 0.0,
        floor_per_s: float = 10.0,
    ) -> Rig: ...


def static(
    name: str,
    url: str,
    place: Place = FRANKFURT,
    *,
    region: str = "eu-central",
    model: str = "digits",
    health_path: str = "",
    cost: float = 0.0,
) -> StaticNode:
    """Not probed, unless `health_path` says where."""
    return StaticNode(
        name=name,
        url=url,
        region=region,
        lat=place.lat,
        lon=place.lon,
        models=(model,),
        health_path=health_path,
        cost_per_request=cost,
    )


def certificate(threshold: float = 0.8) -> Certificate:
    return Certificate(
        stratum=STRATUM,
        model="digits",
        threshold=threshold,
        epsilon=0.02,
        delta=0.05,
        n=1000,
        state="live",
        sequence=1,
        issued_at_s=0.0,
    )


class Rig:
    """A proxy over real upstreams, with all that a test may want to look at."""

    def __init__(
        self,
        upstreams: Upstreams,
        nodes: list[StaticNode],
        cloud_urls: list[str],
        *,
        cloud_region: str = "",
        audit_rate: float = 0.0,
        floor_per_s: float = 10.0,
    ) -> None:
        self.telemetry = Telemetry()
        self.nodes = Nodes(DUBLIN, nodes)
        self.audits: list[Audit] = []
        self.audited = asyncio.Event()
        budget = RetryBudget(ratio=0.0, floor_per_s=floor_per_s)
        self.holder = Holder(
            budget=budget,
            node="router",
            cloud_urls=cloud_urls,
            cloud_region=cloud_region,
            upstreams=upstreams,
            certificates=Certificates([certificate()]),
            hop_key=HOP_KEY,
            hop_name="router",
            publish_audit=self._publish,
            audit_rate=audit_rate,
            telemetry=self.telemetry,
            rng=random.Random(1),
        )
        self.budgets = Budgets(Book(), time.monotonic, time.time)
        tries = Tries(
            fields=Fields(self.nodes, random.Random(1)),
            upstreams=upstreams,
            budget=budget,
            metrics=RouterMetrics(self.telemetry.registry, self.nodes),
            purse=OwnPurse(self.budgets),
            owed=self.holder.may_ask_cloud,
            clock=time.monotonic,
        )
        self.results = Results(self.holder, clock=time.monotonic, wall=time.time)
        self.proxy = Proxy(
            nodes=self.nodes,
            holder=self.holder,
            tries=tries,
            promise=self._promise,
            purse=OwnPurse(self.budgets),
            cloud_cost=1.0,
            rng=random.Random(1),
            clock=time.monotonic,
        )

    async def _promise(self, call: Call) -> bool:
        return self.results.promise(call)

    def _publish(self, audit: Audit) -> None:
        self.audits.append(audit)
        self.audited.set()

    def in_flight(self) -> int:
        return sum(node.in_flight for node in self.nodes.all())


def call(
    *, terms: Terms | None = None, within_ms: float = 5000.0, path: str = "/v1/predict/digits", body: bytes = b"png"
) -> Call:
    known = msgspec.structs.replace(terms or Terms(), request_id="r1")
    sent = {
        "Content-Type": "image/png",
        headers.REQUEST_ID: "r1",
        headers.HOP: sign_hop(HOP_KEY, "router", "r1", time.time()),
    }
    deadline = Deadline.after(within_ms, now_s=time.monotonic())
    return Call(Request("POST", path, sent, body), known, deadline, "digits")
