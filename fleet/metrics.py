"""Prometheus metrics of the fleet manager."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as PrometheusCounter

from fleet.audits import Refusal
from fleet.rollouts.rollout import Phase


class Metrics:
    """Labels are states, never node names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._nodes = Gauge("foothill_fleet_nodes", "Enrolled nodes by state", ("state",), registry=registry)
        self._rollouts = Gauge("foothill_fleet_rollouts", "Rollouts by state", ("state",), registry=registry)
        self._connected = Gauge("foothill_fleet_mqtt_connected", "1 while the broker is connected", registry=registry)
        self._restarts = Gauge("foothill_fleet_broker_restarts", "Restarts of the embedded broker", registry=registry)
        self._audits = PrometheusCounter(
            "foothill_fleet_audits", "Audits received, by whether edge and cloud agree", ("agree",), registry=registry
        )

        self._refused = PrometheusCounter(
            "foothill_fleet_audits_refused", "Audits that were not believed, by reason", ("reason",), registry=registry
        )

        self._chunk_bytes = PrometheusCounter(
            "foothill_fleet_chunk_bytes", "Bytes of chunks sent to nodes over MQTT", registry=registry
        )
        self._wants_refused = PrometheusCounter(
            "foothill_fleet_chunk_wants_refused",
            "Wants of chunks that were not signed by their node, or asked for what is not its own",
            registry=registry,
        )

    def chunk_sent(self, size: int) -> None:
        self._chunk_bytes.inc(size)

    def want_refused(self) -> None:
        self._wants_refused.inc()

    def audit_refused(self, reason: Refusal) -> None:
        self._refused.labels(reason).inc()

    def audit(self, *, agree: bool) -> None:
        self._audits.labels("yes" if agree else "no").inc()

    def update(
        self, *, nodes: Mapping[str, int], rollouts: Iterable[Phase], connected: bool, broker_restarts: int
    ) -> None:
        """Sets all gauges; called when they are read."""
        for state, count in nodes.items():
            self._nodes.labels(state).set(count)
        phases = Counter(rollouts)
        for phase in get_args(Phase):
            self._rollouts.labels(phase).set(phases[phase])
        self._connected.set(connected)
        self._restarts.set(broker_restarts)
