"""How much a figure has grown over a soak, past its warm-up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

LEAST_SAMPLES = 6


class Growth(msgspec.Struct, frozen=True):
    """Medians of the second and of the last third: single peaks do not count, and the first third is warm-up."""

    first: float
    last: float

    @property
    def absolute(self) -> float:
        return self.last - self.first

    @property
    def percent(self) -> float:
        return 100.0 * self.absolute / self.first if self.first > 0 else 0.0


def growth(values: Sequence[float]) -> Growth | None:
    """None for fewer than LEAST_SAMPLES: they say nothing. `values` in the order of time, evenly spaced."""
    if len(values) < LEAST_SAMPLES:
        return None
    third = len(values) // 3
    return Growth(median(values[third : 2 * third]), median(values[-third:]))


def exceeds(grown: Growth, *, percent: float, allowance: float) -> bool:
    """Both must be passed: a share of little is noise, and so is little of a lot."""
    return grown.percent > percent and grown.absolute > allowance
