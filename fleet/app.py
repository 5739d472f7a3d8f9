"""The HTTP routes of the fleet manager: registry, enrolment, rollouts, signed metadata."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from contracts.decoding import UNREADABLE
from contracts.enrolment import EnrolAnswer, EnrolRequest, TokenRequest
from contracts.errors import FoothillError
from contracts.headers import ENGINE
from contracts.timing import TOTAL
from fleet.acceptance import Acceptances, DemandRequest
from fleet.api import RolloutRequest, StopRequest, view
from fleet.audit_reader import AuditReader
from fleet.chunks import ChunkService
from fleet.config import FleetConfig
from fleet.controller import Controller, Wish
from fleet.engines import EngineShelf, read_offer
from fleet.enrolment import Enrolment
from fleet.metrics import Metrics
from fleet.oci import OciLayout
from fleet.registry import Registry
from fleet.signing import Signing
from fleet.state import State, Worker
from runtime.links.http.errors import error_middleware
from runtime.links.process.telemetry import Telemetry

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAX_JSON_BYTES = 2 << 20
_MAX_DIGITS = 18
_FOR_EVER = {"Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=31536000, immutable"}


class Parts(NamedTuple):
    """Everything the routes need. `broker_url` is what nodes are told; `broker_restarts` counts the embedded one's."""

    config: FleetConfig
    worker: Worker
    state: State
    blobs: OciLayout
    signing: Signing
    registry: Registry
    engines: EngineShelf
    acceptances: Acceptances
    audit_reader: AuditReader
    enrolment: Enrolment
    controller: Controller
    chunks: ChunkService
    metrics: Metrics
    telemetry: Telemetry
    tuf_directory: Path
    admin_token: str
    hop_key: str
    broker_url: str
    broker_restarts: Callable[[], int]


def create_app(parts: Parts) -> web.Application:
    """Reads of blobs, engines and signed metadata, and enrolment, need no login: they prove themselves."""
    routes = _Routes(parts)
    middlewares = [_counted(parts.telemetry, time.monotonic), error_middleware("fleet")]
    app = web.Application(middlewares=middlewares, client_max_size=_MAX_JSON_BYTES)
    app.router.add_get("/healthz", routes.health)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_post("/v1/enrol", routes.enrol)
    app.router.add_get("/v1/blobs/{digest}", routes.get_blob)
    app.router.add_get("/v1/engines", routes.engines)
    app.router.add_get("/v1/engines/{digest}", routes.get_engine)
    app.router.add_put("/v1/engines/{digest}", routes.put_engine)
    app.router.add_static("/tuf", parts.tuf_directory)
    admin: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/tokens", routes.issue_token),
        ("GET", "/v1/nodes", routes.nodes),
        ("DELETE", "/v1/nodes/{node}/models/{model}", routes.withdraw),
        ("PUT", "/v1/blobs/{digest}", routes.put_blob),
        ("POST", "/v1/models", routes.publish),
        ("GET", "/v1/models", routes.models),
        ("GET", "/v1/models/{name}/{version}", routes.model),
        ("POST", "/v1/models/{name}/{version}/measurements", routes.measure),
        ("GET", "/v1/audits", routes.audits),
        ("GET", "/v1/audit/head", routes.audit_head),
        ("GET", "/v1/audit/log", routes.audit_log),
        ("GET", "/v1/acceptance", routes.acceptance),
        ("PUT", "/v1/acceptance/{target}", routes.demand),
        ("DELETE", "/v1/acceptance/{target}", routes.lift),
        ("POST", "/v1/acceptance/reports", routes.submit),
        ("GET", "/v1/acceptance/reports/{id}", routes.report),
        ("POST", "/v1/rollouts", routes.start_rollout),
        ("GET", "/v1/rollouts", routes.rollouts),
        ("GET", "/v1/rollouts/{id}", routes.rollout),
        ("POST", "/v1/rollouts/{id}/abort", routes.abort),
        ("POST", "/v1/rollouts/{id}/rollback", routes.roll_back),
        ("POST", "/v1/rollouts/{id}/pause", routes.pause),
        ("POST", "/v1/rollouts/{id}/resume", routes.resume),
        ("POST", "/v1/rollouts/{id}/promote", routes.promote),
        ("POST", "/v1/rollouts/{id}/retry", routes.retry),
        ("GET", "/v1/rollouts/{id}/events", routes.events),
    ]
    for method, path, handler in admin:
        app.router.add_route(method, path, _for_admins(handler, parts.admin_token))
    app.on_shutdown.append(routes.end_watching)
    return app


def _counted(telemetry: Telemetry, clock: Callable[[], float]) -> Middleware:
    """Counts every request under its route's pattern, and times those whose answer is not a stream without an end."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = clock()
        answer = await handler(request)
        resource = request.match_info.route.resource
        telemetry.observe(
            part="fleet",
            route="unknown" if resource is None else resource.canonical,
            model="",
            tier="none",
            reason="ok" if answer.status < 400 else "refused" if answer.status < 500 else "failed",
            status=answer.status,
            phases_ms={} if answer.prepared else {TOTAL: (clock() - started_s) * 1000.0},
        )
        return answer

    return middleware


class _Routes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def health(self, _: web.Request) -> web.StreamResponse:
        connected = self._parts.controller.connected
        return _json({"status": "ok", "mqtt": connected, "broker_url": self._parts.broker_url})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        controller = self._parts.controller
        self._parts.metrics.update(
            nodes=controller.count_nodes(),
            rollouts=(course.rollout.head.phase for course in controller.courses()),
            connected=controller.connected,
            broker_restarts=self._parts.broker_restarts(),
        )
        return self._parts.telemetry.metrics_response()

    async def issue_token(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, TokenRequest)
        return _json(await self._parts.worker.run(self._parts.enrolment.issue, asked), 201)

    async def enrol(self, request: web.Request) -> web.StreamResponse:
        parts = self._parts
        node = await parts.worker.run(parts.enrolment.enrol, await _read(request, EnrolRequest))
        parts.controller.welcome(node)
        answer = EnrolAnswer(
            node=node.name,
            region=node.region,
            lat=node.lat,
            lon=node.lon,
            broker_url=parts.broker_url,
            cloud_urls=parts.config.cloud_urls,
            root=await parts.worker.run(lambda: parts.signing.root),
            hop_key=parts.hop_key,
            identity=node.identity,
        )
        return _json(answer)

    async def nodes(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._parts.controller.node_views())

    async def withdraw(self, request: web.Request) -> web.StreamResponse:
        await self._parts.controller.withdraw(request.match_info["node"], request.match_info["model"])
        return _json({})

    async def put_blob(self, request: web.Request) -> web.StreamResponse:
        digest, limit = request.match_info["digest"], self._parts.config.max_blob_bytes
        if (request.content_length or 0) > limit:
            raise FoothillError("body_too_large", f"A blob may have {limit} bytes; raise max_blob_bytes for more.")
        size = await self._parts.blobs.receive(digest, request.content.iter_any(), limit)
        return _json({"digest": digest, "bytes": size}, 201)

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if self._parts.blobs.size(digest) is None:
            raise FoothillError("not_found", f"Blob {digest} is not in this registry.")
        return web.FileResponse(self._parts.blobs.path(digest), headers=_FOR_EVER)

    async def engines(self, request: web.Request) -> web.StreamResponse:
        """The signed records of the engines of one ONNX file, each MessagePack in base64."""
        onnx = request.query.get("onnx", "")
        return _json(await self._parts.worker.run(self._parts.engines.find, onnx))

    async def get_engine(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if not await self._parts.worker.run(self._parts.engines.has, digest):
            raise FoothillError("not_found", f"Engine {digest[:80]} is not in this registry.")
        return web.FileResponse(self._parts.engines.files.path(digest), headers=_FOR_EVER)

    async def put_engine(self, request: web.Request) -> web.StreamResponse:
        """Takes an engine from an operator, who shows the admin token, or from a node, which signs the record."""
        parts, digest = self._parts, request.match_info["digest"]
        operator = "Authorization" in request.headers
        if operator:
            _check_admin(request, parts.admin_token)
        admit, record = parts.engines.admit, read_offer(request.headers.get(ENGINE, ""))
        offer = await parts.worker.run(lambda: admit(digest, record, operator=operator))
        if not await parts.worker.run(parts.engines.has, digest):
            await parts.engines.files.receive(digest, request.content.iter_any(), offer.record.bytes)
            await parts.worker.run(parts.engines.endorse, offer)
        return _json({"digest": digest, "bytes": offer.record.bytes}, 201)

    async def publish(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._parts.worker.run(self._parts.registry.publish, await request.read()), 201)

    async def models(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._parts.worker.run(self._parts.registry.views))

    async def model(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._parts.worker.run(self._parts.registry.detail, *_named(request)))

    async def measure(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        return _json(await self._parts.worker.run(self._parts.registry.measure, *_named(request), data))

    async def audits(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._parts.worker.run(self._parts.state.audit_tallies))

    async def audit_head(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._parts.audit_reader.head())

    async def audit_log(self, request: web.Request) -> web.StreamResponse:
        """Entries after the number `after`, a line of JSON each."""
        after = request.query.get("after", "0")
        if not after.isdecimal() or len(after) > _MAX_DIGITS:
            raise FoothillError("bad_request", f"after={after[:80]!r} must be the number of an entry.")
        stream = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await stream.prepare(request)
        async for page in self._parts.audit_reader.pages(int(after)):
            await stream.write(b"".join(msgspec.json.encode(entry) + b"\n" for entry in page))
        return stream

    async def acceptance(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._parts.worker.run(self._parts.acceptances.view))

    async def demand(self, request: web.Request) -> web.StreamResponse:
        asked, target = await _read(request, DemandRequest), request.match_info["target"]
        return _json(await self._parts.worker.run(self._parts.acceptances.require, target, asked))

    async def lift(self, request: web.Request) -> web.StreamResponse:
        await self._parts.worker.run(self._parts.acceptances.lift, request.match_info["target"])
        return _json({})

    async def submit(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._parts.worker.run(self._parts.acceptances.submit, await request.read()), 201)

    async def report(self, request: web.Request) -> web.StreamResponse:
        data = await self._parts.worker.run(self._parts.acceptances.report, request.match_info["id"])
        return web.Response(body=data, content_type="application/json")

    async def start_rollout(self, request: web.Request) -> web.StreamResponse:
        return _json(view(await self._parts.controller.start_rollout(await _read(request, RolloutRequest))), 201)

    async def rollouts(self, _: web.Request) -> web.StreamResponse:
        return _json([view(course) for course in self._parts.controller.courses()])

    async def rollout(self, request: web.Request) -> web.StreamResponse:
        return _json(view(self._parts.controller.course(request.match_info["id"])))

    async def abort(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, StopRequest) if request.can_read_body else StopRequest()
        return _json(view(await self._parts.controller.abort(request.match_info["id"], asked.reason)))

    async def roll_back(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, StopRequest) if request.can_read_body else StopRequest()
        return _json(view(await self._parts.controller.roll_back(request.match_info["id"], asked.reason)))

    async def pause(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, "pause")

    async def resume(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, "resume")

    async def promote(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, "promote")

    async def retry(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, "retry")

    async def _steer(self, request: web.Request, wish: Wish) -> web.StreamResponse:
        return _json(view(await self._parts.controller.steer(request.match_info["id"], wish)))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `rollout` with the whole view, now and after every change, until the rollout ends."""
        rollout_id = request.match_info["id"]
        self._parts.controller.course(rollout_id)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        async for course in self._parts.controller.watch(rollout_id):
            body = b": alive\n\n"
            if course is not None:
                body = b"event: rollout\ndata: " + msgspec.json.encode(view(course)) + b"\n\n"
            await stream.write(body)
        return stream

    async def end_watching(self, _: web.Application) -> None:
        await self._parts.controller.end_watching()


def _for_admins(handler: Handler, token: str) -> Handler:
    async def checked(request: web.Request) -> web.StreamResponse:
        _check_admin(request, token)
        return await handler(request)

    return checked


def _check_admin(request: web.Request, token: str) -> None:
    given = request.headers.get("Authorization", "").encode(errors="replace")
    if not given:
        raise FoothillError("unauthorized", "Send the admin token as `Authorization: Bearer TOKEN`.")
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise FoothillError("forbidden", "The admin token is wrong; the right one is in admin.token of the fleet.")


async def _read(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except UNREADABLE as error:
        raise FoothillError("bad_request", f"The body is refused: {error}.") from error


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["name"], request.match_info["version"]
