"""What a version's runs are like, counted where they happen: those that fail, how long they take, how sure they are."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from contracts.errors import FoothillError
from contracts.quality import EDGES_MS, Counts
from runtime.serving.engines.engine import Interrupted
from runtime.serving.engines.tensors import Array
from runtime.serving.models.postprocess import Readings
from runtime.serving.models.shared_run import Read, Run

_MOST_VERSIONS = 64


class Meter:
    """Of one version, however often it is loaded. Counts from any thread. `clock` is monotonic, in seconds.

    A run that nobody waited for any more says nothing of the version, nor does one of values that it cannot take, or of
    values that are no numbers: else anyone could take a good version back by sending nonsense.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latency = [0] * (len(EDGES_MS) + 1)
        self._runs = self._failed = self._judged = self._doubtful = self._looks = self._strained = 0

    def counts(self) -> Counts:
        """All of them so far."""
        with self._lock:
            return Counts(
                runs=self._runs,
                failed=self._failed,
                judged=self._judged,
                doubtful=self._doubtful,
                looks=self._looks,
                strained=self._strained,
                latency=tuple(self._latency),
            )

    def looked(self, *, strained: bool) -> None:
        """A look at the machine while this version served."""
        with self._lock:
            self._looks += 1
            self._strained += strained

    def running(self, run: Run) -> Run:
        """The same, counted."""

        def counted(inputs: Mapping[str, Array]) -> dict[str, Array]:
            started_s = self._clock()
            try:
                outputs = run(inputs)
            except Interrupted:
                raise
            except FoothillError as error:
                if error.code != "bad_tensor":
                    self._ran(None)
                raise
            except Exception:
                self._ran(None)
                raise
            took_ms = (self._clock() - started_s) * 1000.0
            if are_numbers(outputs):
                self._ran(took_ms)
            elif are_numbers(inputs):
                self._ran(None)
            return outputs

        return counted

    def reading(self, read: Read, threshold: float) -> Read:
        """The same, with a count of what is below the threshold, 0..1."""

        def counted(outputs: Mapping[str, Array], ends: Sequence[int]) -> Readings:
            readings = read(outputs, ends)
            sure = [confidence for confidence in readings.confidences if confidence is not None]
            doubtful = sum([confidence < threshold for confidence in sure])
            with self._lock:
                self._judged += len(sure)
                self._doubtful += doubtful
            return readings

        return counted

    def _ran(self, took_ms: float | None) -> None:
        """None: it failed."""
        with self._lock:
            self._runs += 1
            if took_ms is None:
                self._failed += 1
            else:
                self._latency[bisect_left(EDGES_MS, took_ms)] += 1


class Meters:
    """By digest: those of the versions that were served last."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def of(self, digest: str) -> Meter:
        """That of a version which is served from now on."""
        meter = self._meters.pop(digest, None) or Meter()
        self._meters[digest] = meter
        for old in [*self._meters][:-_MOST_VERSIONS]:
            del self._meters[old]
        return meter

    def counts(self) -> dict[str, Counts]:
        return {digest: meter.counts() for digest, meter in self._meters.items()}


def are_numbers(tensors: Mapping[str, Array]) -> bool:
    """Whether no floating-point value among them is NaN or infinite."""
    return all(tensor.dtype.kind != "f" or bool(np.isfinite(tensor).all()) for tensor in tensors.values())
