"""The HTTP routes of a server of models: the same for an edge node and for the cloud tier."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, Protocol, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from contracts import headers, oip
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.timing import format_server_timing
from runtime.links.admission import Admission, admission_middleware
from runtime.links.bodies import read_body
from runtime.links.grants import ANYBODY
from runtime.links.holder import Holder, outward_headers
from runtime.links.hop import Hop, verify_hop
from runtime.links.http_errors import error_middleware, request_id_of
from runtime.links.oip_errors import oip_error_middleware
from runtime.links.telemetry import Telemetry
from runtime.links.timed import PHASES_MS, STARTED_S, timing_middleware
from runtime.links.upstream import Answer, Request, answer_headers
from runtime.serving import images, postprocess, unserved
from runtime.serving import oip as tensors
from runtime.serving.admin import Admin
from runtime.serving.batcher import BatchResult
from runtime.serving.calls import Call
from runtime.serving.facts import Facts
from runtime.serving.hosting import ModelHost, Served
from runtime.serving.metrics import ACCOUNT, counted
from runtime.serving.model_metrics import ModelMetrics
from runtime.serving.oip import Encoded
from runtime.serving.postprocess import Reading, Stamp
from runtime.serving.preprocess import INLINE_BYTES, is_quick
from runtime.serving.repository import Repository
from runtime.serving.tensors import Array
from runtime.serving.workers import Workers

JSON = "application/json"
MSGPACK = "application/msgpack"
UNSETTLED = "unsettled"
"""The reason on an answer whose holder has yet to decide."""

PREDICT = "/v1/predict/{model}"
INFER, INFER_VERSION = "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"

Clock = Callable[[], float]
T = TypeVar("T")


class Spools(Protocol):
    """Where a request waits for a cloud that cannot be asked now."""

    async def keep(self, call: Call, request: Request, edge: Answer) -> str:
        """The value of `Foothill-Late` for its caller; "" where no late answer can be promised. Raises nothing."""
        ...


class ServingSettings(msgspec.Struct, frozen=True):
    """`hop_key` None believes no hop; `admin_token` empty closes the admin routes. Sizes in bytes and pixels.

    `region` is where this server stands, as enrolled or configured; "" lies in no residency claim.
    """

    node: str
    tier: Literal["edge", "cloud"]
    region: str = ""
    max_body_bytes: int = 16 << 20
    default_deadline_ms: float = 10_000.0
    hop_key: bytes | None = None
    admin_token: str = ""
    max_pixels: int = images.MAX_PIXELS
    decode_threads: int = 2


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
    answers = Answers(host, settings, workers, holder, clock, wall, admission=admission, spool=spool)
    facts = Facts(host, node=settings.node, tier=settings.tier, telemetry=telemetry)
    admin = Admin(repository, settings.admin_token)
    telemetry.registry.register(ModelMetrics(host))
    count = partial(counted, telemetry=telemetry, part=settings.tier, clock=clock)
    app = web.Application(
        middlewares=[
            timing_middleware(clock),
            _stamped(settings),
            oip_error_middleware,
            error_middleware(settings.node),
            *([admission_middleware(admission, asking=(PREDICT, INFER, INFER_VERSION))] if admission else []),
        ]
    )
    app.add_routes(
        [
            web.post(INFER, count("infer", answers.infer)),
            web.post(INFER_VERSION, count("infer", answers.infer)),
            web.post(PREDICT, count("predict", answers.predict)),
            *facts.routes(),
            *admin.routes(),
            *unserved.routes(),
        ]
    )

    async def close_workers(_: web.Application) -> None:
        workers.close()

    app.on_cleanup.append(close_workers)
    return app


class Answers:
    """The two routes that run a model."""

    def __init__(
        self,
        host: ModelHost,
        settings: ServingSettings,
        workers: Workers,
        holder: Holder | None,
        clock: Clock,
        wall: Clock,
        *,
        admission: Admission | None = None,
        spool: Spools | None = None,
    ) -> None:
        self._admission = admission
        self._spool = spool
        self._host = host
        self._settings = settings
        self._workers = workers
        self._holder = holder
        self._clock = clock
        self._wall = wall

    async def infer(self, request: web.Request) -> web.Response:
        """The Open Inference Protocol: tensors in, the tensors asked for out."""
        call = await self._begin(request)
        with self._host.get(call.model, call.version) as served:
            manifest = served.loaded.manifest
            with call.phase("decode"):
                length = request.headers.get(oip.HEADER_LENGTH)
                quick = tensors.json_bytes(call.body, length) <= INLINE_BYTES
                asked = await self._work(call, partial(tensors.read, call.body, length, manifest), here=quick)
            call.narrow(asked.timeout_us)
            result = await self._run(call, served, asked.inputs, asked.priority)
        with call.phase("encode"):
            reading = served.loaded.read(result.outputs)
            quick = tensors.written_as_json(result.outputs, asked.wanted) <= INLINE_BYTES
            write = partial(tensors.write_response, result.outputs, asked.wanted, manifest, call.model, asked.id)
            body = await self._work(call, write, here=quick)
        return await self._answer(request, call, served, reading, body)

    async def predict(self, request: web.Request) -> web.Response:
        """A picture or a tensor map in, a typed answer out."""
        call = await self._begin(request)
        with self._host.get(call.model) as served:
            postprocess.check_predictable(served.loaded.manifest)
            with call.phase("decode"):
                inputs = await self._read_inputs(request, call, served)
            result = await self._run(call, served, inputs)
        with call.phase("encode"):
            reading = served.loaded.read(result.outputs)
            body = self._write_prediction(request, call, served, result.outputs, reading)
        return await self._answer(request, call, served, reading, body)

    async def _begin(self, request: web.Request) -> Call:
        """Everything about a request that is known before its model runs; its body is read here."""
        arrived_s = self._clock()
        request_id = request_id_of(request)
        model, version = request.match_info["model"], request.match_info.get("version", "")
        grant = await self._admission.check(request.headers, request_id, model) if self._admission else ANYBODY
        terms = grant.narrow(headers.parse_terms(request.headers))
        self._check_residency(terms)
        deadline = Deadline.after(terms.deadline_ms or self._settings.default_deadline_ms, now_s=arrived_s)
        self._host.get(model, version)
        request[ACCOUNT].model = model
        body = await read_body(request, self._settings.max_body_bytes, deadline, self._clock)
        grant.count_body(len(body))
        call = Call(
            request_id=request_id,
            model=model,
            version=version,
            terms=terms,
            deadline=deadline,
            hop=self._hop(request, request_id),
            body=body,
            started_s=self._clock(),
            clock=self._clock,
            grant=grant,
        )
        request[STARTED_S] = call.started_s
        request[PHASES_MS] = request[ACCOUNT].phases_ms = call.phases_ms
        return call

    def _check_residency(self, terms: Terms) -> None:
        """Before the body is read, and whoever sent it here: a router's table may be older than this node's place."""
        if not terms.admit(self._settings.region):
            raise FoothillError(
                "residency_denied",
                f"{self._settings.node} stands in {self._settings.region or 'an unknown region'}, outside "
                f"{', '.join(terms.residency)}. Ask a server there, or widen Foothill-Residency.",
            )

    def _hop(self, request: web.Request, request_id: str) -> Hop | None:
        if self._settings.hop_key is None:
            return None
        return verify_hop(self._settings.hop_key, request.headers.get(headers.HOP), request_id, self._wall())

    async def _read_inputs(self, request: web.Request, call: Call, served: Served) -> Mapping[str, Array]:
        """The input tensors of a predict body. Raises FoothillError `unsupported_media_type` for other bodies."""
        manifest, preprocessor = served.loaded.manifest, served.loaded.preprocessor
        media_type = request.content_type
        if media_type == MSGPACK:
            inputs = tensors.read_packed(oip.parse_packed(call.body), manifest)
            postprocess.check_one_row(manifest, inputs)
            return inputs
        if media_type in images.MEDIA_TYPES and preprocessor is not None:
            most = self._settings.max_pixels
            quick = is_quick(call.body, media_type, max_pixels=most)
            decode = partial(preprocessor.tensor, call.body, media_type, max_pixels=most)
            tensor = await self._work(call, decode, here=quick)
            return {manifest.inputs[0].name: tensor}
        taken = ", ".join((*(images.MEDIA_TYPES if preprocessor is not None else ()), MSGPACK))
        raise FoothillError(
            "unsupported_media_type", f"Model {call.model} takes {taken}, not {media_type[:80]!r}: set Content-Type."
        )

    async def _work(self, call: Call, work: Callable[[], T], *, here: bool) -> T:
        """Runs `work` in this thread when it is quick, else where it cannot hold up other requests."""
        return work() if here else await self._workers.run(work, call.deadline)

    async def _run(self, call: Call, served: Served, inputs: Mapping[str, Array], priority: int = 0) -> BatchResult:
        call.rows = len(next(iter(inputs.values()))) if served.loaded.batches else 1
        try:
            result = await served.batcher.submit(inputs, call.deadline, priority=priority)
        except FoothillError:
            served.statistics.failed((self._clock() - call.started_s) * 1000.0)
            raise
        call.phases_ms["queue"] = result.queue_ms
        call.phases_ms["infer"] = result.infer_ms
        self._host.note(result.queue_ms, call.phases_ms["decode"] + result.infer_ms)
        return result

    def _write_prediction(
        self, request: web.Request, call: Call, served: Served, outputs: Mapping[str, Array], reading: Reading
    ) -> Encoded:
        manifest = served.loaded.manifest
        postprocess.check_numbers(outputs, reading, manifest, from_tensors=request.content_type == MSGPACK)
        stamp = Stamp(call.model, self._settings.tier, self._settings.node, self._reason(), call.request_id)
        prediction = postprocess.predict(outputs, reading, manifest, stamp)
        if prefers_msgpack(request.headers.get("Accept", "")):
            return Encoded(msgspec.msgpack.encode(prediction), MSGPACK, None)
        return Encoded(msgspec.json.encode(prediction), JSON, None)

    async def _answer(
        self, request: web.Request, call: Call, served: Served, reading: Reading, body: Encoded
    ) -> web.Response:
        """The local answer, or what its holder makes of it where that is this node."""
        call.deadline.check(self._clock(), "the answer was written")
        served.statistics.succeeded(call.phases_ms, rows=call.rows, now_s=self._wall())
        local = Answer(200, answer_headers(self._local_headers(call, served, reading, body)), body.body)
        if call.hop is not None or self._holder is None:
            outward = local.headers if call.hop is not None else headers.strip_hop_only(local.headers)
            request[ACCOUNT].answered(self._settings.tier, self._reason(), call.with_total(call.phases_ms))
            return web.Response(body=local.body, headers=outward)
        onward = call.onward(request)
        settled = await self._holder.settle(
            onward, local, call.terms, call.deadline, model=call.model, permit=call.grant.take_escalation
        )
        late = await self._spool.keep(call, onward, local) if self._spool is not None and settled.open else ""
        phases_ms = call.with_total(settled.phases)
        request[ACCOUNT].answered(settled.tier, settled.reason, phases_ms)
        outward = outward_headers(settled)
        outward[headers.REQUEST_ID] = call.request_id
        outward[headers.SERVER_TIMING] = format_server_timing(phases_ms)
        if late:
            outward[headers.LATE] = late
        return web.Response(body=settled.answer.body, headers=outward)

    def _local_headers(self, call: Call, served: Served, reading: Reading, body: Encoded) -> dict[str, str]:
        """All headers of an answer that only a hop may see whole."""
        loaded = served.loaded
        named = {
            "Content-Type": body.content_type,
            headers.REQUEST_ID: call.request_id,
            headers.TIER: self._settings.tier,
            headers.NODE: self._settings.node,
            headers.REASON: self._reason(),
            headers.STRATUM: loaded.stratum,
            headers.CERTIFIED: "false",
            headers.DEGRADED: "false",
            headers.MODEL: loaded.manifest.reference,
            headers.DIGEST: loaded.digest,
            headers.ANSWER: reading.answer,
            headers.LOAD: self._host.load().header(),
            headers.SERVER_TIMING: format_server_timing(call.with_total(call.phases_ms)),
        }
        if reading.confidence is not None:
            named[headers.CONFIDENCE] = repr(reading.confidence)
        if body.header_length is not None:
            named[oip.HEADER_LENGTH] = str(body.header_length)
        return {name: value for name, value in named.items() if value}

    def _reason(self) -> str:
        return "cloud" if self._settings.tier == "cloud" else UNSETTLED


def prefers_msgpack(accept: str) -> bool:
    """Whether an `Accept` header names MessagePack and not JSON, or MessagePack first. Anything else gets JSON."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    wanted = [name for name in named if name in (JSON, MSGPACK)]
    return wanted[:1] == [MSGPACK]


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
