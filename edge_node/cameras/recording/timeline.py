"""Times of encoded pictures that a player can follow, from those that a camera sent."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

PLAIN_STEP_S = 1.0
"""A step this short is believed. A longer one must have taken as long by the clock too: see `_agreed`."""
LONGEST_STEP_S = 60.0
LONGEST_DELAY_S = 5.0
"""Between decoding a picture and showing it: 16 pictures, the most that H.264 and H.265 hold back, at 3 a second."""
_USUAL_STEP_S = 0.04


class Stamp(NamedTuple):
    """When a picture is decoded and shown, in ticks of its timeline; `pts` is never before `dts`."""

    dts: int
    pts: int


class Timeline:
    """The pictures of one unbroken stream, in the order of decoding: `dts` begins at 0 and always rises.

    Steps are those of the stream's own times where they can be right, else those of the clock, else as usual. `base` is
    the length of a tick in seconds. `by_clock`: the stream's own times are not asked (FFmpeg makes them up, 25 pictures
    a second, for MJPEG over HTTP, which has none).
    """

    def __init__(self, base: Fraction, *, by_clock: bool = False) -> None:
        self.base = base
        self._by_clock = by_clock
        self._per_s = float(1 / base)
        self._usual = max(1, round(_USUAL_STEP_S * self._per_s))
        self._plain = max(1, int(PLAIN_STEP_S * self._per_s))
        self._longest = max(1, int(LONGEST_STEP_S * self._per_s))
        self._delay = int(LONGEST_DELAY_S * self._per_s)
        self._now = -1
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._last_at_s = 0.0

    def next(self, pts: int | None, dts: int | None, at_s: float) -> Stamp:
        """`pts` and `dts` as the stream has them, in ticks; `at_s` by any clock in seconds, which may jump."""
        self._now = self._now + self._step(pts, dts, at_s) if self._now >= 0 else 0
        self._last_pts, self._last_dts, self._last_at_s = pts, dts, at_s
        return Stamp(self._now, self._now + self._held_back(pts, dts))

    def _step(self, pts: int | None, dts: int | None, at_s: float) -> int:
        own = None if self._by_clock else _rise(dts, self._last_dts) or _rise(pts, self._last_pts)
        waited_s = at_s - self._last_at_s
        if own is not None and (own <= self._plain or self._agreed(own, waited_s)):
            self._usual = min(own, self._plain)
            return own
        if 0 < waited_s <= LONGEST_STEP_S:
            return max(1, round(waited_s * self._per_s))
        return self._usual

    def _agreed(self, step: int, waited_s: float) -> bool:
        return step <= self._longest and step <= (2 * waited_s + PLAIN_STEP_S) * self._per_s

    def _held_back(self, pts: int | None, dts: int | None) -> int:
        if self._by_clock or pts is None or dts is None:
            return 0
        return pts - dts if 0 <= pts - dts <= self._delay else 0


def _rise(now: int | None, before: int | None) -> int | None:
    return now - before if now is not None and before is not None and now > before else None
