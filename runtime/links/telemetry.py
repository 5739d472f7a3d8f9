"""Prometheus metrics that every process keeps, with labels that stay few whatever callers send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Purpose = Literal["escalate", "audit", "fallback"]
AuditOutcome = Literal["published", "failed", "dropped", "unpaired"]

OTHER = "other"
MAX_MODELS = 64
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Telemetry:
    """One process's metrics. `part` is router, edge, cloud or fleet; times go in as milliseconds, out as seconds."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._models: set[str] = set()
        self._phase_seconds = Histogram(
            "foothill_phase_seconds",
            "Time of one phase of a request, as in Server-Timing; `total` is the whole of it",
            ("part", "phase", "tier", "model"),
            registry=self.registry,
            buckets=_BUCKETS_S,
        )
        self._requests = Counter(
            "foothill_requests_total",
            "Requests answered",
            ("part", "route", "model", "tier", "reason", "status"),
            registry=self.registry,
        )
        self._in_flight = Gauge("foothill_in_flight", "Requests being answered now", ("part",), registry=self.registry)
        self._cloud_bytes = Counter(
            "foothill_cloud_bytes_total",
            "HTTP bytes to and from the cloud: heads and bodies",
            ("direction", "purpose"),
            registry=self.registry,
        )
        self._audits = Counter(
            "foothill_audits_total",
            "Requests drawn for an audit, by how it ended",
            ("outcome",),
            registry=self.registry,
        )

    def observe(
        self,
        *,
        part: str,
        route: str,
        model: str,
        tier: str,
        reason: str,
        status: int,
        phases_ms: Mapping[str, float],
    ) -> None:
        """Counts one answered request. `route` and `reason` come from fixed sets; `model` is bounded here."""
        model = self._bounded(model)
        self._requests.labels(part, route, model, tier, reason, str(status)).inc()
        for phase, milliseconds in phases_ms.items():
            self._phase_seconds.labels(part, phase, tier, model).observe(milliseconds / 1000.0)

    def in_flight(self, part: str) -> Gauge:
        """Use as `with telemetry.in_flight("router").track_inprogress():`."""
        return self._in_flight.labels(part)

    def cloud_bytes(self, purpose: Purpose, *, sent: int, received: int) -> None:
        self._cloud_bytes.labels("sent", purpose).inc(sent)
        self._cloud_bytes.labels("received", purpose).inc(received)

    def audit(self, outcome: AuditOutcome) -> None:
        self._audits.labels(outcome).inc()

    def metrics_response(self) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _bounded(self, model: str) -> str:
        """The first 64 models keep their names; a caller that makes names up gets `other`."""
        if model not in self._models:
            if not model or len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(model)
        return model
