"""What a process takes of its machine: Prometheus's own `process_…` metrics, its threads and its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_STATUS = Path("/proc/self/status")


def register(registry: CollectorRegistry) -> None:
    """Memory, CPU time, open files and start of this process, its threads and tasks; only the tasks where there is no
    /proc."""
    ProcessCollector(registry=registry)
    registry.register(_Threads())
    registry.register(_Tasks())


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


class _Tasks(Collector):
    """Of the event loop that is asked; nothing where none runs."""

    def collect(self) -> Iterator[Metric]:
        try:
            tasks = asyncio.all_tasks()
        except RuntimeError:
            return
        yield GaugeMetricFamily("foothill_tasks", "Tasks of the event loop that are not done", value=float(len(tasks)))
