"""Tracks as others see them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Shown = Literal["confirmed", "lost", "ended"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels; it may reach beyond the picture."""


class Track(msgspec.Struct, frozen=True):
    """One object, for as long as it is followed. `id` rises with every track of a camera and is never used twice.

    `label` is the one that its detections gave most, each as heavy as its score; `score` (0..1) is that of the last
    one, `best_score` the highest of all. `box` is where it is now, also while nothing finds it. `first_s` and `last_s`
    are the capture times when it was found first and last, `hits` is how often. `broken`: it was lost and found again,
    or its label wavers.
    """

    id: int
    label: str
    score: float
    box: Box
    first_s: float
    last_s: float
    state: Shown
    hits: int
    broken: bool
    best_score: float


class Changes(NamedTuple):
    """What one picture has changed; no track is in two of them."""

    started: tuple[Track, ...] = ()
    updated: tuple[Track, ...] = ()
    lost: tuple[Track, ...] = ()
    ended: tuple[Track, ...] = ()
