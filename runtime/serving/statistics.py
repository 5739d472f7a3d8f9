"""What one served model has done since it was loaded, as the statistics extension of the protocol tells it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_NS_PER_MS = 1_000_000


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


class ModelStatistics(msgspec.Struct):
    """https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md

    `last_inference` in ms since the epoch; `inference_count` counts rows, `execution_count` answered requests.
    """

    name: str
    version: str
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: InferStatistics = msgspec.field(default_factory=InferStatistics)

    def succeeded(self, phases_ms: Mapping[str, float], *, rows: int, now_s: float) -> None:
        """Counts one answered request of `rows` rows, with the times of its phases in ms; `now_s` is unix time."""
        stats = self.inference_stats
        self.last_inference = int(now_s * 1000)
        self.inference_count += rows
        self.execution_count += 1
        stats.success.add(sum(phases_ms.values()))
        stats.queue.add(phases_ms.get("queue", 0.0))
        stats.compute_input.add(phases_ms.get("decode", 0.0))
        stats.compute_infer.add(phases_ms.get("infer", 0.0))
        stats.compute_output.add(phases_ms.get("encode", 0.0))

    def failed(self, milliseconds: float) -> None:
        self.inference_stats.fail.add(milliseconds)


class Statistics(msgspec.Struct):
    model_stats: list[ModelStatistics]
