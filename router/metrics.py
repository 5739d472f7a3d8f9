"""What only a router counts, beside the metrics of every process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts.headers import Priority
from router.node import Node
from router.nodes import Nodes

RetryOutcome = Literal["tried", "no-budget"]
HedgeOutcome = Literal["won", "lost", "no-budget"]


class RouterMetrics:
    """Counters of retries and leases, and gauges read off the table of nodes when they are asked for."""

    def __init__(self, registry: CollectorRegistry, nodes: Nodes) -> None:
        self._retries = Counter(
            "foothill_router_retries_total",
            "Second and later tries of a request, and those the retry budget refused",
            ("outcome",),
            registry=registry,
        )
        self._leases = Counter(
            "foothill_router_leases_total",
            "Leases given, by whether the caller's place was known",
            ("placed",),
            registry=registry,
        )
        self._hedges = Counter(
            "foothill_router_hedges_total",
            "Requests that a second node was asked for too because the first was slow, and those the budgets refused",
            ("outcome",),
            registry=registry,
        )
        self._shed = Counter(
            "foothill_router_shed_total",
            "Requests refused because the nodes had as many as they could answer in time, by priority",
            ("priority",),
            registry=registry,
        )
        registry.register(_Table(nodes))

    def retry(self, outcome: RetryOutcome) -> None:
        self._retries.labels(outcome).inc()

    def hedge(self, outcome: HedgeOutcome) -> None:
        self._hedges.labels(outcome).inc()

    def shed(self, priority: Priority) -> None:
        self._shed.labels(priority).inc()

    def lease(self, *, placed: bool) -> None:
        self._leases.labels(str(placed).lower()).inc()


class _Table(Collector):
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def collect(self) -> Iterator[Metric]:
        nodes = self._nodes.all()
        yield _gauge("foothill_router_nodes", "Nodes with a verified identity", "state", (node.state for node in nodes))
        yield _gauge("foothill_router_circuits", "Circuits of nodes", "state", (node.circuit.state for node in nodes))
        yield _in_flight(nodes)


def _gauge(name: str, about: str, label: str, values: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=(label,))
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family


def _in_flight(nodes: Iterable[Node]) -> Metric:
    family = GaugeMetricFamily("foothill_router_in_flight", "Requests this router has at nodes", labels=("region",))
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.identity.region] = counts.get(node.identity.region, 0) + node.in_flight
    for region, count in sorted(counts.items()):
        family.add_metric((region,), count)
    return family
