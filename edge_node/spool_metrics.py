"""What the spool counts."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from edge_node.spool_file import Figures


class SpoolMetrics:
    """Reasons for drops come from a fixed set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._spooled = Counter("foothill_spool_spooled_total", "Doubtful inputs kept for the cloud", registry=registry)
        self._delivered = Counter(
            "foothill_spool_delivered_total", "Doubtful inputs that the cloud answered late", registry=registry
        )
        self._dropped = Counter(
            "foothill_spool_dropped_total", "Doubtful inputs not kept, or given up", ("reason",), registry=registry
        )
        self._inputs = Gauge("foothill_spool_inputs", "Doubtful inputs that wait for the cloud", registry=registry)
        self._answers = Gauge("foothill_spool_answers", "Late answers kept for their callers", registry=registry)
        self._bytes = Gauge("foothill_spool_bytes", "Bytes of inputs and answers together", registry=registry)
        self._oldest = Gauge(
            "foothill_spool_oldest_seconds", "Age of the oldest input that waits; 0 without one", registry=registry
        )

    def spooled(self, count: int) -> None:
        self._spooled.inc(count)

    def delivered(self) -> None:
        self._delivered.inc()

    def dropped(self, reasons: Mapping[str, int]) -> None:
        for reason, count in reasons.items():
            self._dropped.labels(reason).inc(count)

    def show(self, figures: Figures, now_s: float) -> None:
        self._inputs.set(figures.inputs)
        self._answers.set(figures.answers)
        self._bytes.set(figures.bytes)
        self._oldest.set(max(0.0, now_s - figures.oldest_at_s) if figures.oldest_at_s is not None else 0.0)
