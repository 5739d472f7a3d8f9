"""Who sees every request come and go, and has it told: its trace on the answer, a line in the log, its spans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts import headers
from contracts.timing import parse_server_timing
from contracts.traces import told_traceparent
from router.places.client_address import Address
from router.seeing.access_log import AccessLog, Kind, Noted
from router.seeing.spans import Recorded, Spans
from runtime.links.access.grants import grant_of
from runtime.links.http.accounts import CLIENT_GONE, Account, Recording
from runtime.links.http.exchanges import Clock, Incoming, Outgoing
from runtime.links.http.through_aiohttp import Through

log = logging.getLogger(__name__)

PROBES = frozenset(("/healthz", "/metrics", "/v2/health/live", "/v2/health/ready"))
"""Asked by machines all day long: told of only where they fail."""
_MOST_CHARACTERS = 200


class Witness:
    """`runtime.links.http.accounts.Witness`. `address` says whose request it is."""

    def __init__(
        self, access_log: AccessLog | None, spans: Spans | None, address: Callable[[Incoming], Address | None]
    ) -> None:
        self.access_log = access_log
        self.spans = spans
        self._address = address

    def begun(self, route: str, request: Incoming, now_s: float) -> Recording | None:
        try:
            return self.spans.begin(route, request, now_s) if self.spans is not None else None
        except Exception:
            log.exception("no span can be begun for request %s", request.request_id)
            return None

    def ended(self, route: str, request: Incoming, account: Account, answer: Outgoing | None) -> None:
        recorded = account.recording
        if answer is not None:
            answer.headers[headers.TRACEPARENT] = recorded.traceparent if recorded else trace_told(request)
        try:
            if self.access_log is not None:
                self._note(self.access_log, route, request, account, answer)
            if self.spans is not None and isinstance(recorded, Recorded):
                self.spans.end(recorded, account, request, answer)
        except Exception:
            log.exception("request %s cannot be told of", request.request_id)

    def client(self, request: Incoming) -> str:
        """Whose request it is, as far as the log may tell it."""
        return self.access_log.client(self._address(request)) if self.access_log is not None else ""

    def passed(
        self, access_log: AccessLog, request: web.Request, answered: web.StreamResponse | None, took_ms: float
    ) -> None:
        """A request that no story told: another route's, or nobody's."""
        incoming, resource = Through(request), request.match_info.route.resource
        status = answered.status if answered is not None else CLIENT_GONE
        told: Mapping[str, str] = answered.headers if answered is not None else {headers.REASON: "client-gone"}
        kind = Kind(
            method=request.method,
            route="" if resource is None else resource.canonical,
            model=_printable(request.match_info.get("model", "")),
            client=self.client(incoming),
            tenant=grant_of(request).tenant,
            status=status,
            tier="none",
            node=told.get(headers.NODE, ""),
            reason=told.get(headers.REASON, ""),
            region="",
        )
        phases_ms = {"total": took_ms} | parse_server_timing(told.get(headers.SERVER_TIMING))
        sent, own = request.content_length or 0, (answered.content_length or 0) if answered is not None else 0
        trace = request.headers.get(headers.TRACEPARENT, "")
        access_log.note(Noted(kind, access_log.wall(), incoming.request_id, trace, sent, own, phases_ms))

    def _note(
        self, access_log: AccessLog, route: str, request: Incoming, account: Account, answer: Outgoing | None
    ) -> None:
        told = answer.all_headers() if answer is not None else {}
        kind = Kind(
            method=request.method,
            route=route,
            model=_printable(request.params.get("model", "")),
            client=self.client(request),
            tenant=request.grant.tenant if request.grant is not None else "",
            status=account.status,
            tier=account.tier,
            node=told.get(headers.NODE, ""),
            reason=account.reason,
            region=account.region,
        )
        noted = Noted(
            kind,
            access_log.wall(),
            request.request_id,
            account.recording.traceparent if account.recording else request.headers.get(headers.TRACEPARENT, ""),
            account.body_bytes,
            answer.size if answer is not None else 0,
            account.phases_ms,
        )
        access_log.note(noted)


class Losses(Collector):
    """What was to be told, and was not. 0 where nothing is: a rule for it finds it."""

    def __init__(self, lines: Callable[[], int], spans: Callable[[], int], registry: CollectorRegistry) -> None:
        self._lines = lines
        self._spans = spans
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        about = "Lines of the access log that were not written: the disk is too slow, or full"
        lines = CounterMetricFamily("foothill_access_log_dropped", about)
        lines.add_metric((), self._lines())
        yield lines
        about = "Spans that the collector did not get: it is away, or too slow"
        spans = CounterMetricFamily("foothill_spans_dropped", about)
        spans.add_metric((), self._spans())
        yield spans


def trace_told(request: Incoming) -> str:
    return told_traceparent(request.headers.get(headers.TRACEPARENT, ""), request.request_id)


def seeing_middleware(witness: Witness, told: Container[str], clock: Clock) -> Middleware:
    """For the log, whatever comes through aiohttp, but for the routes whose stories are `told` of. The outermost
    middleware."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        access_log, resource = witness.access_log, request.match_info.route.resource
        if access_log is None or (resource is not None and resource.canonical in told):
            return await handler(request)
        began_s = clock()
        answered: web.StreamResponse | None = None
        try:
            answered = await handler(request)
        except web.HTTPException as error:
            answered = error
            raise
        finally:
            if answered is None or answered.status >= 400 or request.path not in PROBES:
                witness.passed(access_log, request, answered, (clock() - began_s) * 1000.0)
        return answered

    return middleware


async def tell_trace(request: web.Request, answer: web.StreamResponse) -> None:
    """`on_response_prepare` of the application: on event streams and redirects too."""
    answer.headers.setdefault(headers.TRACEPARENT, trace_told(Through(request)))


def _printable(name: str) -> str:
    """Bytes of a path that are no text are lone surrogates, which JSON cannot carry."""
    return name[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()
