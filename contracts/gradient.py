"""An adaptive limit on how many requests may be at a model at once: Gradient2."""

from __future__ import annotations

WINDOW_S, WINDOW_SAMPLES = 0.1, 10
SMOOTHING, GROWTH, TOLERANCE = 0.2, 4.0, 1.5
_LONG_WINDOWS, _WARM_WINDOWS = 600, 10


class Gradient2:
    """The limit shrinks while answers take longer than they did in the long run, by the ratio of both, and grows by a
    few while they do not. It starts at `maximum`.

    The algorithm: https://github.com/Netflix/concurrency-limits, Gradient2Limit with the windows of WindowedLimit:
    every window, limit ← (1 - smoothing) limit + smoothing (gradient × limit + growth) with gradient = tolerance ×
    long / short, kept in [0.5, 1].
    """

    def __init__(self, maximum: int) -> None:
        self.limit = float(maximum)
        self._maximum = float(maximum)
        self._long_s = 0.0
        self._windows = 0
        self._since_s: float | None = None
        self._samples = 0
        self._sum_s = 0.0
        self._most = 0

    def observe(self, seconds: float, in_flight: int, now_s: float) -> None:
        """Takes how long one answer took, with so many requests at the model."""
        if self._since_s is None:
            self._since_s = now_s
        self._samples += 1
        self._sum_s += seconds
        self._most = max(self._most, in_flight)
        if self._samples >= WINDOW_SAMPLES and now_s - self._since_s >= WINDOW_S:
            self._update(self._sum_s / self._samples, self._most)
            self._since_s, self._samples, self._sum_s, self._most = now_s, 0, 0.0, 0

    def _update(self, short_s: float, in_flight: int) -> None:
        self._windows += 1
        # A plain mean at first, then an exponential one.
        self._long_s += (short_s - self._long_s) * max(
            2.0 / (_LONG_WINDOWS + 1), 1.0 / self._windows if self._windows <= _WARM_WINDOWS else 0.0
        )
        if self._long_s > 2 * short_s:
            self._long_s *= 0.9
        if in_flight < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self._long_s / short_s)) if short_s > 0 else 1.0
        target = gradient * self.limit + GROWTH
        self.limit = max(1.0, min(self._maximum, (1 - SMOOTHING) * self.limit + SMOOTHING * target))
