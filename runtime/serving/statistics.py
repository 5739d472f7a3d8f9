"""What one served model has done since it was loaded, as the statistics extension of the protocol tells it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from runtime.serving.batching.schedule import Runs

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


class Duration(msgspec.Struct):
    """How often, and nanoseconds in all."""

    count: int = 0
    ns: int = 0

    def add(self, milliseconds: float, times: int = 1) -> None:
        self.count += times
        self.ns += int(milliseconds * _NS_PER_MS)


class InferStatistics(msgspec.Struct):
    success: Duration = msgspec.field(default_factory=Duration)
    fail: Duration = msgspec.field(default_factory=Duration)
    queue: Duration = msgspec.field(default_factory=Duration)
    compute_input: Duration = msgspec.field(default_factory=Duration)
    compute_infer: Duration = msgspec.field(default_factory=Duration)
    compute_output: Duration = msgspec.field(default_factory=Duration)
    cache_hit: Duration = msgspec.field(default_factory=Duration)
    cache_miss: Duration = msgspec.field(default_factory=Duration)


class BatchStatistics(msgspec.Struct):
    """Runs of `batch_size` rows. Requests are put together and taken apart within `compute_infer`."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(msgspec.Struct):
    """https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md

    `last_inference` in ms since the epoch; `inference_count` counts rows, `execution_count` runs of the engine, each of
    one or more requests. The durations of `inference_stats` are those of requests, each with the whole of its run.
    """

    name: str
    version: str
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: InferStatistics = msgspec.field(default_factory=InferStatistics)
    batch_stats: tuple[BatchStatistics, ...] = ()

    def succeeded(self, phases_ms: Mapping[str, float], *, rows: int, now_s: float) -> None:
        """Counts one answered request of `rows` rows, with the times of its phases in ms; `now_s` is unix time."""
        stats = self.inference_stats
        self.last_inference = int(now_s * 1000)
        self.inference_count += rows
        for duration, milliseconds in (
            (stats.success, sum(phases_ms.values())),
            (stats.queue, phases_ms.get("queue", 0.0)),
            (stats.compute_input, phases_ms.get("decode", 0.0)),
            (stats.compute_infer, phases_ms.get("infer", 0.0)),
            (stats.compute_output, phases_ms.get("encode", 0.0)),
        ):
            duration.count += 1
            duration.ns += int(milliseconds * _NS_PER_MS)

    def with_runs(self, runs: Mapping[int, Runs]) -> ModelStatistics:
        """These, and the engine's sound runs by their number of rows."""
        return msgspec.structs.replace(
            self,
            execution_count=sum(each.count for each in runs.values()),
            batch_stats=tuple(_of_batch(rows, each) for rows, each in sorted(runs.items())),
        )

    def failed(self, milliseconds: float) -> None:
        self.inference_stats.fail.add(milliseconds)


class Statistics(msgspec.Struct):
    model_stats: list[ModelStatistics]


def _of_batch(rows: int, runs: Runs) -> BatchStatistics:
    inferred = Duration(runs.count, int(runs.engine_s * _NS_PER_S))
    return BatchStatistics(rows, Duration(runs.count), inferred, Duration(runs.count))
