"""The metrics of several processes as those of one: families as data, and how they add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Sample

Labels = tuple[tuple[str, str], ...]

_NOT_SUMS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "process_start_time_seconds": min,
    "process_max_fds": min,
    "foothill_router_nodes": max,
    "foothill_router_circuits": max,
}
"""All others are: requests, bytes, memory, times. What each process knows of the same nodes is not."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """One sample."""

    name: str
    labels: Labels
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with all its samples; `kind` as Prometheus names types."""

    name: str
    about: str
    kind: str
    samples: tuple[Told, ...]


def counted(registry: CollectorRegistry) -> tuple[Family, ...]:
    """All that a process counts."""
    return tuple(
        Family(metric.name, metric.documentation, metric.type, tuple(_told(sample) for sample in metric.samples))
        for metric in registry.collect()
    )


def merged(processes: Iterable[Sequence[Family]]) -> list[Metric]:
    """Those of all processes, by name and labels, in the order in which they were first told."""
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, Labels], list[float]]] = {}
    for told in processes:
        for family in told:
            families.setdefault(family.name, family)
            of_family = values.setdefault(family.name, {})
            for sample in family.samples:
                of_family.setdefault((sample.name, sample.labels), []).append(sample.value)
    return [_metric(family, values[name]) for name, family in families.items()]


def _told(sample: Sample) -> Told:
    return Told(sample.name, tuple(sample.labels.items()), sample.value)


def _metric(family: Family, values: Mapping[tuple[str, Labels], Sequence[float]]) -> Metric:
    metric = Metric(family.name, family.about, family.kind)
    add_up = _NOT_SUMS.get(family.name, sum)
    for (name, labels), each in values.items():
        if not name.endswith("_created"):
            metric.add_sample(name, dict(labels), add_up(each))
    return metric
