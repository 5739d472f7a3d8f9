"""What a process takes of its machine: Prometheus's own `process_…` metrics, and its threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_STATUS = Path("/proc/self/status")


def register(registry: CollectorRegistry) -> None:
    """Memory, CPU time, open files and start of this process, and its threads; nothing where there is no /proc."""
    ProcessCollector(registry=registry)
    registry.register(_Threads())


class _Threads(Collector):
    """All threads, those of native libraries too, which Python does not know."""

    def collect(self) -> Iterator[Metric]:
        try:
            lines = _STATUS.read_text().splitlines()
        except OSError:
            return
        found = next((line for line in lines if line.startswith("Threads:")), "")
        if found:
            yield GaugeMetricFamily("foothill_threads", "Threads of the process", value=float(found.split()[1]))
