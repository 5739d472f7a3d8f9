"""How long a run of so many rows takes: one curve for each model, measured before it serves, corrected by every run."""

from __future__ import annotations

import math
from bisect import bisect_left

PAYS = 0.87
"""A batch must bring the time of its rows down to this share of what they take apart: in it everybody waits for the
last, and what is less is within the error of what is measured."""
OWN, SHARED = 0.05, 0.15
"""How far one run moves its own size, and all sizes with it, towards what was measured: what slows a machine down slows
every size, so that sizes which are not run now do not go stale."""
_CLIP = math.log(2.0)
"""One run counts as at most twice as slow, or fast, as believed: a pause of the machine is no property of a model."""
SURE = 0.95
_MARGIN_STEP = 0.05
_MARGIN_MAX = 4.0
_OVERHEAD_GAIN = 0.1
_STALE_RUNS, _STALE_MOST, _NEARLY = 256, 1 << 16, 1.2
"""After so many runs a size that did not pay is tried again, after twice as many each time that it still does not."""


def sizes_up_to(max_rows: int) -> tuple[int, ...]:
    """The sizes that are measured: 1, 2, 4, … and `max_rows`."""
    powers = [1 << power for power in range(max_rows.bit_length())]
    return tuple(sorted({*(size for size in powers if size <= max_rows), max_rows}))


class ServiceTimes:
    """S(rows) in seconds at a few sizes, a straight line between them, never falling.

    A size that nobody has measured is taken to cost as much a row as the largest measured one below it. While nothing
    is measured at all every time is 0: then nothing is refused for it. `longest_s` is more than the sure time of any
    size: who has that much left needs no closer look.
    """

    def __init__(self, max_rows: int) -> None:
        self.sizes = sizes_up_to(max_rows)
        self._measured_s = [0.0] * len(self.sizes)
        self._curve_s = [0.0] * len(self.sizes)
        self._paces_s = [0.0] * len(self.sizes)
        self._last_run = [0] * len(self.sizes)
        self._stale_runs = [_STALE_RUNS] * len(self.sizes)
        self._runs = 0
        self._overhead_s = 0.0
        self._margin = 1.5
        self.longest_s = 0.0

    @property
    def known(self) -> bool:
        return self._curve_s[0] > 0.0

    def engine_s(self, rows: int) -> float:
        """Seconds that the engine computes, S(rows)."""
        sizes, curve_s = self.sizes, self._curve_s
        at = bisect_left(sizes, rows)
        if at == len(sizes):
            return curve_s[-1] * rows / sizes[-1]
        if at == 0 or sizes[at] == rows:
            return curve_s[at]
        below, above = sizes[at - 1], sizes[at]
        return curve_s[at - 1] + (curve_s[at] - curve_s[at - 1]) * (rows - below) / (above - below)

    def run_s(self, rows: int) -> float:
        """Seconds from handing a run over until its answers are there: S(rows), and what the way costs."""
        return self.engine_s(rows) + self._overhead_s if self.known else 0.0

    def sure_s(self, rows: int) -> float:
        """Seconds within which 95 of 100 runs were back."""
        return self.run_s(rows) * self._margin

    def pace_s(self, rows: int) -> float:
        """Seconds a row takes where `rows` wait and are run in the sizes that pay best."""
        at = bisect_left(self.sizes, rows + 1) - 1
        return self._paces_s[max(0, at)]

    def best(self, rows: int) -> int:
        """The size in which `rows` that wait are run at about that pace."""
        most_s = self.pace_s(rows) / PAYS
        return next(size for size, pace_s in zip(self.sizes, self._paces_s, strict=True) if pace_s <= most_s)

    def due(self, size: int, best_s: float) -> bool:
        """Whether one of `sizes` is worth a try, where the size below it is best so far with `best_s` seconds a row:
        nobody has measured it, or nobody has for long while it was not much worse."""
        at = self.sizes.index(size)
        if not self._measured_s[at]:
            return True
        return self._is_stale(at) and self.run_s(size) < _NEARLY * best_s * size

    def measured(self, size: int, seconds: float) -> None:
        """Takes what a warm-up has measured for one of `sizes`."""
        self._measured_s[self.sizes.index(size)] = seconds
        self._draw()

    def observe(self, rows: int, engine_s: float, whole_s: float) -> None:
        """Takes one run: the time of the engine, and the whole time as in `run_s`."""
        self._runs += 1
        if engine_s <= 0.0:
            return
        expected_s = self.engine_s(rows)
        at = bisect_left(self.sizes, min(rows, self.sizes[-1]))
        tried = self._is_stale(at)
        self._correct(min(rows, self.sizes[-1]), engine_s, expected_s)
        self._draw()
        if tried:
            paid = at == 0 or self._paces_s[at] <= PAYS * self._paces_s[at - 1]
            self._stale_runs[at] = _STALE_RUNS if paid else min(_STALE_MOST, 2 * self._stale_runs[at])
        if expected_s:
            self._judge(whole_s, expected_s, engine_s)

    def _is_stale(self, at: int) -> bool:
        return self._runs - self._last_run[at] >= self._stale_runs[at]

    def _correct(self, rows: int, engine_s: float, expected_s: float) -> None:
        at = bisect_left(self.sizes, rows)
        below = at if self.sizes[at] == rows else at - 1
        share = 1.0 if at == below else (rows - self.sizes[below]) / (self.sizes[at] - self.sizes[below])
        self._last_run[at] = self._runs
        if expected_s:
            error = max(-_CLIP, min(_CLIP, math.log(engine_s / expected_s)))
            common = math.exp(SHARED * error)
            self._measured_s = [seconds * common for seconds in self._measured_s]
            self._measured_s[below] *= math.exp(OWN * (1.0 - share) * error)
            self._measured_s[at] *= math.exp(OWN * share * error)
        if not self._measured_s[at]:
            self._measured_s[at] = self._beyond(below, at, rows, engine_s)

    def _beyond(self, below: int, at: int, rows: int, engine_s: float) -> float:
        """The first guess at a size from a run of fewer rows: on along the line from the size below."""
        if at == below:
            return engine_s
        small, large = self.sizes[below], self.sizes[at]
        base_s = self._curve_s[below] or engine_s * small / rows
        return max(engine_s, base_s + (engine_s - base_s) * (large - small) / (rows - small))

    def _draw(self) -> None:
        """The curve through what is measured, and the best seconds a row up to each size."""
        highest_s = pace_s = 0.0
        row_s = next((s / size for s, size in zip(self._measured_s, self.sizes, strict=True) if s), 0.0)
        for at, size in enumerate(self.sizes):
            highest_s = max(highest_s, self._measured_s[at] or row_s * size)
            row_s = highest_s / size
            cost_s = (highest_s + self._overhead_s) / size
            pace_s = min(pace_s, cost_s) if at else cost_s
            self._curve_s[at], self._paces_s[at] = highest_s, pace_s
        self.longest_s = _MARGIN_MAX * (highest_s + self._overhead_s)

    def _judge(self, whole_s: float, expected_s: float, engine_s: float) -> None:
        """Learns the overhead, and by stochastic approximation the 95th percentile of whole over expected time.

        Robbins and Monro 1951, "A Stochastic Approximation Method", example of a quantile.
        """
        sample_s = min(max(0.0, whole_s - engine_s), 4 * self._overhead_s + 0.001)
        self._overhead_s += _OVERHEAD_GAIN * (sample_s - self._overhead_s)
        late = whole_s > (expected_s + self._overhead_s) * self._margin
        step = SURE if late else SURE - 1.0
        self._margin = min(_MARGIN_MAX, max(1.0, self._margin + _MARGIN_STEP * step))
