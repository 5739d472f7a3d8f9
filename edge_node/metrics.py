"""What an edge node counts besides its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts.messages import ModelPhase, Vitals
from edge_node.updater import Updater


class NodeMetrics:
    """The phase of every model on the node, and which desired document it follows."""

    def __init__(self, registry: CollectorRegistry, updater: Updater) -> None:
        self._updater = updater
        self._phase = Gauge(
            "foothill_model_phase", "1 for the phase that a model is in", ("model", "phase"), registry=registry
        )
        self._serving = Gauge(
            "foothill_model_serving", "1 while a bundle of the model answers", ("model",), registry=registry
        )
        self._sequence = Gauge(
            "foothill_desired_sequence", "Sequence of the desired document in force", registry=registry
        )
        self._models: set[str] = set()
        updater.changed.append(self.update)

    def update(self) -> None:
        reports = self._updater.reports
        self._sequence.set(self._updater.sequence)
        for model in self._models - set(reports):
            self._serving.remove(model)
            for phase in get_args(ModelPhase):
                self._phase.remove(model, phase)
        for model, report in reports.items():
            self._serving.labels(model).set(bool(report.serving))
            for phase in get_args(ModelPhase):
                self._phase.labels(model, phase).set(phase == report.phase)
        self._models = set(reports)


class VitalMetrics(Collector):
    """The machine, read when metrics are asked for; what it does not say is left out."""

    def __init__(self, registry: CollectorRegistry, vitals: Callable[[], Vitals]) -> None:
        self._vitals = vitals
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        now = self._vitals()
        figures = {
            "foothill_node_free_memory_bytes": (
                "Memory that can be taken, within control groups",
                now.free_memory_bytes,
            ),
            "foothill_node_free_disk_bytes": ("Free on the disk of the store", now.free_disk_bytes),
            "foothill_node_temperature_celsius": ("The hottest thermal zone", now.temperature_c),
            "foothill_node_throttled": ("1 while clocks are held down against heat", now.throttled),
        }
        for name, (meaning, value) in figures.items():
            if value is not None:
                yield GaugeMetricFamily(name, meaning, value=float(value))

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering does not read the machine."""
        return iter(())
