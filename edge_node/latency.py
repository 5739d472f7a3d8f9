"""How long one row takes: what is to take over, beside what serves now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.serving.engines.tensors import Array
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.models.warm_up import first_row

SLACK_MS = 1.0
"""Below this a comparison of times says more of the machine than of the model."""

_RUNS = 5
_PATIENCE_MS = 10_000.0

Clock = Callable[[], float]


class LatencyRule(msgspec.Struct, frozen=True):
    """A row of a new bundle may take `max_slowdown` times as long as what it replaces, and never longer than
    `deadline_ms`, after which nobody waits for it. A `max_slowdown` of 0 asks nothing."""

    max_slowdown: float = 10.0
    deadline_ms: float = 10_000.0


class Latencies(msgspec.Struct, frozen=True):
    """The best of a few runs in ms; `served_ms` is None where nothing serves the model."""

    own_ms: float
    served_ms: float | None = None

    def __str__(self) -> str:
        served = "nothing serves now" if self.served_ms is None else f"{self.served_ms:.2f} ms as it is served now"
        return f"{self.own_ms:.2f} ms a row, {served}"


def too_slow(latencies: Latencies, rule: LatencyRule) -> str:
    """What speaks against the new one; "" when nothing does."""
    if latencies.own_ms > rule.deadline_ms:
        return f"one row takes {latencies.own_ms:.0f} ms here, and requests have {rule.deadline_ms:.0f} ms"
    if latencies.served_ms is not None:
        limit_ms = rule.max_slowdown * latencies.served_ms + SLACK_MS
        if latencies.own_ms > limit_ms:
            return f"it is too slow: {latencies}; at most {rule.max_slowdown:g} times as long is allowed"
    return ""


async def measure(model: str, loaded: LoadedModel, host: ModelHost, clock: Clock = time.monotonic) -> Latencies:
    """Raises FoothillError when the new one fails. What serves now waits its turn among the requests."""
    inputs = await asyncio.to_thread(first_row, loaded)
    own_ms = await asyncio.to_thread(fastest_ms, loaded, inputs, clock)
    try:
        return Latencies(own_ms, await served_ms(model, inputs, host, clock))
    except FoothillError:
        # Nothing serves, it takes other inputs, or it fails, maybe: the new one is not to blame.
        return Latencies(own_ms)


def fastest_ms(loaded: LoadedModel, inputs: Mapping[str, Array], clock: Clock) -> float:
    """The best of a few runs, after one that warms up."""
    loaded.run(inputs)
    best = float("inf")
    for _ in range(_RUNS):
        started_s = clock()
        loaded.run(inputs)
        best = min(best, (clock() - started_s) * 1000.0)
    return best


async def served_ms(model: str, inputs: Mapping[str, Array], host: ModelHost, clock: Clock) -> float:
    """The best of a few runs of what serves now, each waiting its turn among the requests."""
    best = float("inf")
    with host.get(model) as served:
        for _ in range(_RUNS):
            answer = await served.batcher.submit(inputs, Deadline.after(_PATIENCE_MS, now_s=clock()))
            best = min(best, answer.infer_ms)
    return best
