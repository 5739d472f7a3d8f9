"""What the served models' queues and engines do, as Prometheus metrics: read when they are asked for, counted nowhere
on the way of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.serving.models.hosting import ModelHost

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ModelMetrics(Collector):
    """By model, since its bundle was loaded. The labels are the models that are served and fixed sets."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("foothill_model_waiting", "Requests that wait for the engine", labels=("model",))
        limit = GaugeMetricFamily("foothill_model_limit", "Requests that may be at the model", labels=("model",))
        times = GaugeMetricFamily("foothill_model_run_seconds", "What a run takes", labels=("model", "rows"))
        engine = CounterMetricFamily("foothill_model_engine_seconds", "Time of the engine", labels=("model",))
        refusals = CounterMetricFamily("foothill_model_refusals", "Requests not run", labels=("model", "reason"))
        providers = GaugeMetricFamily("foothill_model_provider", "1: what runs it", labels=("model", "provider"))
        opening = GaugeMetricFamily(
            "foothill_model_opening_seconds", "What opening the served bundle took", labels=("model", "step")
        )
        batches = HistogramMetricFamily("foothill_model_batch_rows", "Rows of a run", labels=("model",))
        for model, served in self._host.models.items():
            schedule = served.batcher.schedule
            waiting.add_metric((model,), schedule.line.waiting)
            limit.add_metric((model,), schedule.limit)
            engine.add_metric((model,), schedule.engine_s)
            providers.add_metric((model, served.loaded.engine.provider), 1)
            opened = served.loaded.opening
            if opened is not None:
                opening.add_metric((model, "load"), opened.load_s)
                opening.add_metric((model, "first-answer"), opened.first_answer_s)
                opening.add_metric((model, "warm-up"), opened.warm_up_s)
            batches.add_metric((model,), *_histogram(schedule.runs_by_rows))
            for size in schedule.times.sizes:
                times.add_metric((model, str(size)), schedule.times.engine_s(size))
            for reason, count in schedule.refused.items():
                refusals.add_metric((model, reason), count)
        yield from (waiting, limit, times, engine, refusals, batches, providers, opening)


def _histogram(runs_by_rows: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and the sum of all rows."""
    bounds = (*map(float, _ROWS), float("inf"))
    lows = (0.0, *bounds[:-1])
    within = [
        sum(runs for rows, runs in runs_by_rows.items() if low < rows <= high)
        for low, high in zip(lows, bounds, strict=True)
    ]
    names = (*map(str, bounds[:-1]), "+Inf")
    total = sum(rows * runs for rows, runs in runs_by_rows.items())
    return list(zip(names, accumulate(map(float, within)), strict=True)), float(total)
