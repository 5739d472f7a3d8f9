"""The metrics of several processes as those of one."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from router.workers.counts import Family, counted, merged

observations = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=30)


def process(observed: list[tuple[str, float]], nodes: int) -> tuple[Family, ...]:
    registry = CollectorRegistry()
    requests = Counter("foothill_requests", "Requests", ("model",), registry=registry)
    seconds = Histogram("foothill_phase_seconds", "Times", ("model",), buckets=(0.1, 1.0), registry=registry)
    Gauge("foothill_router_nodes", "Nodes", registry=registry).set(nodes)
    for model, took_s in observed:
        requests.labels(model).inc()
        seconds.labels(model).observe(took_s)
    told = counted(registry)
    return msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=tuple[Family, ...])


def values(metrics: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in metrics
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(observations, min_size=1, max_size=4))
def test_several_processes_count_as_one_that_had_seen_it_all(told: list[list[tuple[str, float]]]) -> None:
    all_of_it = [each for observed in told for each in observed]
    together = values(merged([process(observed, 3) for observed in told]))
    alone = values(merged([process(all_of_it, 3)]))
    assert together.keys() == alone.keys()
    assert all(abs(together[name] - alone[name]) < 1e-6 for name in alone)


def test_what_all_know_of_the_same_nodes_is_not_added_up() -> None:
    assert values(merged([process([], 3), process([], 4)]))["foothill_router_nodes", ()] == 4
