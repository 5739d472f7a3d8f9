"""What one served model has done since it was loaded, as the statistics extension of the protocol tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from contracts.timing import TOTAL
from runtime.serving.batching.schedule import Runs

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


PHASES = ("decode", "queue", "infer", "encode", TOTAL)
Times = tuple[float, float, float, float, float]
"""Of one request: those of its PHASES, in ms."""


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

    def succeeded(self, times_ms: Sequence[Times], *, rows: int, now_s: float) -> None:
        """Counts answered requests, of so many rows in all; `now_s` is unix time."""
        stats, count = self.inference_stats, len(times_ms)
        self.last_inference = int(now_s * 1000)
        self.inference_count += rows
        decode, queue, infer, encode, _ = map(sum, zip(*times_ms, strict=True))
        stats.success.add(decode + queue + infer + encode, count)
        stats.queue.add(queue, count)
        stats.compute_input.add(decode, count)
        stats.compute_infer.add(infer, count)
        stats.compute_output.add(encode, count)

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
