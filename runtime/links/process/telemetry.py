"""Prometheus metrics that every process keeps, with labels that stay few whatever callers send."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Final, Literal, NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from runtime.links.process import metrics as process_metrics

Purpose = Literal["escalate", "audit", "fallback", "late"]
AuditOutcome = Literal["published", "failed", "dropped", "unpaired", "outside-residency"]

OTHER = "other"
_AT_ONCE: Final = 256
MAX_MODELS = 64
MAX_REGIONS = 64
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BUCKETS_MS = tuple(1000.0 * bound for bound in _BUCKETS_S)
_BOUNDS = (*map(str, _BUCKETS_S), "+Inf")


Note = Callable[[tuple[tuple[float, ...], str]], None]
"""Takes the times of one request, in milliseconds, one for each of the first phases, and the others as written."""
Read = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Reads what many have written: the times of each phase. Raises ValueError where one of them is written otherwise."""


class Labels(NamedTuple):
    """Of a request. `route` and `reason` come from fixed sets. `region` is that of whoever answered, "" where nobody
    did, or nobody knows; the times of phases are counted by it."""

    part: str
    route: str
    model: str
    tier: str
    reason: str
    status: int
    region: str = ""


_COUNTED = len(Labels._fields) - 1
"""Requests are counted by all labels but the region."""


class Telemetry:
    """One process's metrics. `part` is router, edge, cloud or fleet; times go in as milliseconds, out as seconds."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._models: set[str] = set()
        self._regions: set[str] = set()
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
        region: str = "",
    ) -> None:
        """Counts one answered request. `route` and `reason` come from fixed sets; `model` and `region` are bounded.

        Call it on the event loop only.
        """
        labels = Labels(part, route, model, tier, reason, status, region)
        self.observe_all(labels, tuple(phases_ms), [tuple(phases_ms.values())])

    def observe_all(self, labels: Labels, phases: tuple[str, ...], times_ms: Sequence[tuple[float, ...]]) -> None:
        """Counts answered requests of the same labels, with the times of these phases."""
        labels = self._bounded(labels)
        self._answered.note(labels, phases, times_ms)

    def tally(self, labels: Labels, phases: tuple[str, ...], read: Read) -> Note:
        """Counts answered requests of these labels, one at a time: to be kept by who answers very many. `read` reads
        what is written of the last phases."""
        labels = self._bounded(labels)
        return self._answered.noting(labels, phases, read)

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

    def _bounded(self, labels: Labels) -> Labels:
        """The first 64 models and regions keep their names; a caller that makes names up gets `other`."""
        if labels.model not in self._models:
            labels = labels._replace(model=_known(labels.model, self._models, MAX_MODELS))
        if labels.region and labels.region not in self._regions:
            labels = labels._replace(region=_known(labels.region, self._regions, MAX_REGIONS))
        return labels


def _known(name: str, known: set[str], most: int) -> str:
    if not name or len(known) >= most:
        return OTHER
    known.add(name)
    return name


class InFlight:
    """How many requests are being answered now."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class Tally:
    """Requests that are answered alike."""

    __slots__ = ("_in_flight", "_note")

    def __init__(self, in_flight: InFlight, note: Note) -> None:
        self._in_flight = in_flight
        self._note = note

    def add(self, times_ms: tuple[float, ...], written: str) -> None:
        """One was answered: the times of the first phases, and the others as they are written."""
        self._in_flight.count -= 1
        self._note((times_ms, written))


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
        self._noted: dict[tuple[Labels, tuple[str, ...]], list[tuple[float, ...]]] = {}
        self._written: dict[tuple[Labels, tuple[str, ...]], _Written] = {}
        self._requests: dict[tuple[str | int, ...], int] = {}
        self._phases: dict[tuple[str, str, str, str], dict[str, _Times]] = {}

    def note(self, labels: Labels, phases: tuple[str, ...], times_ms: Sequence[tuple[float, ...]]) -> None:
        noted = self._noted.setdefault((labels, phases), [])
        noted.extend(times_ms)
        if len(noted) >= _AT_ONCE:
            self._count(labels, phases, noted)
            noted.clear()

    def noting(self, labels: Labels, phases: tuple[str, ...], read: Read) -> Note:
        written = self._written.get((labels, phases))
        if written is None:
            written = self._written[labels, phases] = _Written(partial(self._add, labels, phases), read)
        return written.note

    def _count(self, labels: Labels, phases: tuple[str, ...], times_ms: Sequence[tuple[float, ...]]) -> None:
        self._add(labels, phases, [*zip(*times_ms, strict=True)], len(times_ms))

    def _add(self, labels: Labels, phases: tuple[str, ...], columns: Sequence[Sequence[float]], requests: int) -> None:
        counted = labels[:_COUNTED]
        self._requests[counted] = self._requests.get(counted, 0) + requests
        by_phase = self._phases.setdefault((labels.part, labels.tier, labels.model, labels.region), {})
        for phase, column in zip(phases, columns, strict=True):
            times = by_phase.get(phase)
            if times is None:
                times = by_phase[phase] = _Times()
            times.add(column)

    def collect(self) -> Iterator[Metric]:
        for written in self._written.values():
            written.count()
        for (labels, phases), noted in self._noted.items():
            if noted:
                self._count(labels, phases, noted)
                noted.clear()
        seconds = HistogramMetricFamily(
            "foothill_phase_seconds",
            "Time of one phase of a request, as in Server-Timing; `total` is the whole of it",
            labels=("part", "phase", "tier", "model", "region"),
        )
        for (part, tier, model, region), by_phase in self._phases.items():
            for phase, times in by_phase.items():
                buckets = list(zip(_BOUNDS, accumulate(times.by_bucket), strict=True))
                seconds.add_metric((part, phase, tier, model, region), buckets, times.sum_ms / 1000.0)
        yield seconds
        requests = CounterMetricFamily(
            "foothill_requests",
            "Requests answered",
            labels=Labels._fields[:_COUNTED],
        )
        for counted, count in self._requests.items():
            requests.add_metric([*map(str, counted)], count)
        yield requests


class _Written:
    """Times that are read when many are counted at once."""

    def __init__(self, count: Callable[[Sequence[Sequence[float]], int], None], read: Read) -> None:
        self._count = count
        self._read = read
        self._noted: list[tuple[tuple[float, ...], str]] = []

    def note(self, noted: tuple[tuple[float, ...], str]) -> None:
        self._noted.append(noted)
        if len(self._noted) >= _AT_ONCE:
            self.count()

    def count(self) -> None:
        noted, self._noted = self._noted, []
        if not noted:
            return
        try:
            self._add(noted)
        except ValueError:
            for one in noted:
                with suppress(ValueError):
                    self._add([one])

    def _add(self, noted: Sequence[tuple[tuple[float, ...], str]]) -> None:
        times_ms, written = zip(*noted, strict=True)
        read = self._read(written)
        self._count([*zip(*times_ms, strict=True), *read], len(noted))


class _Times:
    """One phase's times: how many fell into each bucket alone, and their sum."""

    def __init__(self) -> None:
        self.by_bucket = [0] * len(_BOUNDS)
        self.sum_ms = 0.0

    def add(self, times_ms: Sequence[float]) -> None:
        ordered, below = sorted(times_ms), 0
        for bucket, bound_ms in enumerate(_BUCKETS_MS):
            within = bisect_right(ordered, bound_ms, below)
            self.by_bucket[bucket] += within - below
            below = within
        self.by_bucket[-1] += len(ordered) - below
        self.sum_ms += sum(ordered)
