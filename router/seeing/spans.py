"""The spans of a request: one of the router's own, and below it the choice of a node and every upstream that was asked.

Names and attributes are OpenTelemetry's for HTTP where they fit
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/); the rest begins with `foothill.`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts import headers
from contracts.traces import Span, format_traceparent, is_drawn, parse_traceparent, trace_id_of
from router.seeing.collector import Collector
from runtime.links.http.accounts import Account, Hop
from runtime.links.http.exchanges import Clock, Incoming, Outgoing

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context

_SERVER_ERROR = 500
_NS = 1e9


class Recorded:
    """One request's own span: `runtime.links.http.accounts.Recording`. `wall_s` is unix time less the clock's."""

    def __init__(self, span: trace.Span, wall_s: float) -> None:
        told = span.get_span_context()
        self.span = span
        self.wall_s = wall_s
        self.traceparent = format_traceparent(Span(f"{told.trace_id:032x}", f"{told.span_id:016x}", True))

    def ns(self, at_s: float) -> int:
        return int((at_s + self.wall_s) * _NS)


class Spans:
    """Who is recorded, and what of him. `sample` is a share of traces; callers who record are followed where `follow`.
    `clock` is the server's, `wall` unix time, both in seconds."""

    def __init__(
        self, collector: Collector, *, sample: float, follow: bool, scheme: str, clock: Clock, wall: Clock
    ) -> None:
        from opentelemetry import trace

        self._otel = trace
        self._collector = collector
        self._tracer = collector.tracer
        self._sample = sample
        self._follow = follow
        self._scheme = scheme
        self._clock = clock
        self._wall = wall

    def wants(self, traceparent: str, request_id: str) -> bool:
        """Whether a request is recorded: the same however often it is asked. A caller who has begun a trace and does
        not record it is not recorded here."""
        parent = parse_traceparent(traceparent) if traceparent else None
        if parent is None:
            return is_drawn(trace_id_of(request_id), self._sample)
        return parent.sampled and (self._follow or is_drawn(parent.trace_id, self._sample))

    def begin(self, route: str, request: Incoming, now_s: float) -> Recorded | None:
        """None for those that are not recorded."""
        sent = request.headers.get(headers.TRACEPARENT, "")
        if not self.wants(sent, request.request_id):
            return None
        wall_s = self._wall() - self._clock()
        span = self._tracer.start_span(
            f"{request.method} {route}",
            context=self._parent(sent, request.request_id),
            kind=self._otel.SpanKind.SERVER,
            attributes={
                "http.request.method": request.method,
                "http.route": route,
                "url.path": request.target.partition("?")[0],
                "url.scheme": self._scheme,
                "foothill.request_id": request.request_id,
            },
            start_time=int((now_s - request.waited_s + wall_s) * _NS),
        )
        return Recorded(span, wall_s) if span.is_recording() else None  # OTEL_SDK_DISABLED

    def end(self, recorded: Recorded, account: Account, request: Incoming, answer: Outgoing | None) -> None:
        span, told = recorded.span, answer.all_headers() if answer is not None else {}
        known: dict[str, str | int | float] = {
            "http.request.body.size": account.body_bytes,
            "foothill.model": request.params.get("model", ""),
            "foothill.tenant": request.grant.tenant if request.grant is not None else "",
            "foothill.tier": account.tier,
            "foothill.node": told.get(headers.NODE, ""),
            "foothill.region": account.region,
            "foothill.reason": account.reason,
        }
        known |= {f"foothill.phase.{phase}_ms": round(ms, 3) for phase, ms in account.phases_ms.items()}
        span.set_attributes({name: value for name, value in known.items() if value != ""})
        if answer is not None:
            span.set_attribute("http.response.status_code", answer.status)
            span.set_attribute("http.response.body.size", answer.size)
        if account.status >= _SERVER_ERROR or answer is None:
            span.set_attribute("error.type", account.reason)
        if account.status >= _SERVER_ERROR:
            span.set_status(self._otel.StatusCode.ERROR, account.reason)
        self._add_children(recorded, account)
        span.end(recorded.ns(self._clock()))

    def _parent(self, sent: str, request_id: str) -> Context:
        """The caller's span; without one a trace begins, of the request's id."""
        otel, parent = self._otel, parse_traceparent(sent)
        if parent is None:
            self._collector.begin_trace(trace_id_of(request_id))
            root: Context = otel.set_span_in_context(otel.INVALID_SPAN)
            return root
        flags = otel.TraceFlags(otel.TraceFlags.SAMPLED)
        told = otel.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
        below: Context = otel.set_span_in_context(otel.NonRecordingSpan(told))
        return below

    def _add_children(self, recorded: Recorded, account: Account) -> None:
        if "route" in account.phases_ms:
            chosen_s = account.started_s + account.phases_ms["route"] / 1000.0
            self._child(recorded, "route", self._otel.SpanKind.INTERNAL, account.started_s, {}).end(
                recorded.ns(chosen_s)
            )
        for hop in account.hops:
            self._add_hop(recorded, hop)

    def _add_hop(self, recorded: Recorded, hop: Hop) -> None:
        known: dict[str, str | int | float] = {"foothill.node": hop.node, "foothill.region": hop.region}
        if hop.status:
            known["http.response.status_code"] = hop.status
        failed = hop.error or (str(hop.status) if hop.status >= 400 else "")
        if failed:
            known["error.type"] = failed
        told = {name: value for name, value in known.items() if value != ""}
        span = self._child(recorded, hop.purpose, self._otel.SpanKind.CLIENT, hop.started_s, told)
        if failed:
            span.set_status(self._otel.StatusCode.ERROR, failed)
        span.end(recorded.ns(hop.ended_s))

    def _child(
        self,
        recorded: Recorded,
        name: str,
        kind: trace.SpanKind,
        started_s: float,
        attributes: dict[str, str | int | float],
    ) -> trace.Span:
        return self._tracer.start_span(
            name,
            context=self._otel.set_span_in_context(recorded.span),
            kind=kind,
            attributes=attributes,
            start_time=recorded.ns(started_s),
        )
