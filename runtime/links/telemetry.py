"""Prometheus metrics that every process keeps, with labels that stay few whatever callers send."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Literal

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from runtime.links import process_metrics

Purpose = Literal["escalate", "audit", "fallback", "late"]
AuditOutcome = Literal["published", "failed", "dropped", "unpaired", "outside-residency"]

OTHER = "other"
_AT_ONCE = 256
MAX_MODELS = 64
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BUCKETS_MS = tuple(1000.0 * bound for bound in _BUCKETS_S)
_BOUNDS = (*map(str, _BUCKETS_S), "+Inf")


_Labels = tuple[str, str, str, str, str, int]
"""Part, route, model, tier, reason and status of a request."""


class Telemetry:
    """One process's metrics. `part` is router, edge, cloud or fleet; times go in as milliseconds, out as seconds."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._models: set[str] = set()
        self._answered = _Answered()
        self.registry.register(self._answered)
        process_metrics.register(self.registry)
        self._in_flight = _AllInFlight()
        self.registry.register(self._in_flight)
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
        """Counts one answered request. `route` and `reason` come from fixed sets; `model` is bounded here.

        Call it on the event loop only.
        """
        if model not in self._models:
            model = self._bounded(model)
        self._answered.note((part, route, model, tier, reason, status), phases_ms)

    def in_flight(self, part: str) -> InFlight:
        """Count with it on the event loop only."""
        return self._in_flight.of(part)

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


class InFlight:
    """How many requests are being answered now."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class _AllInFlight(Collector):
    def __init__(self) -> None:
        self._by_part: dict[str, InFlight] = {}

    def of(self, part: str) -> InFlight:
        return self._by_part.setdefault(part, InFlight())

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("foothill_in_flight", "Requests being answered now", labels=("part",))
        for part, in_flight in self._by_part.items():
            family.add_metric((part,), in_flight.count)
        yield family


class _Answered(Collector):
    """Requests and the times of their phases, by label values.

    Every request is counted here half a dozen times, and the library's own counters and histograms look up, check and
    lock each time: of what is ours on the way of a small request, nothing cost more. So requests are only noted, and
    counted many at once; labels and buckets are made when metrics are asked for.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[_Labels, Mapping[str, float]]] = []
        self._requests: dict[_Labels, int] = {}
        self._phases: dict[tuple[str, str, str], dict[str, _Times]] = {}

    def note(self, labels: _Labels, phases_ms: Mapping[str, float]) -> None:
        """`phases_ms` must not change any more."""
        self._noted.append((labels, phases_ms))
        if len(self._noted) >= _AT_ONCE:
            self._count_noted()

    def _count_noted(self) -> None:
        noted, self._noted = self._noted, []
        for labels, phases_ms in noted:
            self._count(labels, phases_ms)

    def _count(self, labels: _Labels, phases_ms: Mapping[str, float]) -> None:
        self._requests[labels] = self._requests.get(labels, 0) + 1
        part, _, model, tier, _, _ = labels
        phases = self._phases.get((part, tier, model))
        if phases is None:
            phases = self._phases[part, tier, model] = {}
        for phase, milliseconds in phases_ms.items():
            times = phases.get(phase)
            if times is None:
                times = phases[phase] = _Times()
            times.by_bucket[bisect_left(_BUCKETS_MS, milliseconds)] += 1
            times.sum_ms += milliseconds

    def collect(self) -> Iterator[Metric]:
        self._count_noted()
        seconds = HistogramMetricFamily(
            "foothill_phase_seconds",
            "Time of one phase of a request, as in Server-Timing; `total` is the whole of it",
            labels=("part", "phase", "tier", "model"),
        )
        for (part, tier, model), phases in self._phases.items():
            for phase, times in phases.items():
                buckets = list(zip(_BOUNDS, accumulate(times.by_bucket), strict=True))
                seconds.add_metric((part, phase, tier, model), buckets, times.sum_ms / 1000.0)
        yield seconds
        requests = CounterMetricFamily(
            "foothill_requests",
            "Requests answered",
            labels=("part", "route", "model", "tier", "reason", "status"),
        )
        for labels, count in self._requests.items():
            requests.add_metric([*map(str, labels)], count)
        yield requests


class _Times:
    """One phase's times: how many fell into each bucket alone, and their sum."""

    def __init__(self) -> None:
        self.by_bucket = [0] * len(_BOUNDS)
        self.sum_ms = 0.0
