"""How detections become tracks."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class TrackerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores, 0..1: from `high_score` on a detection is looked for first, from `low_score` on it keeps a track alive,
    from `begin_score` on it begins one. `min_overlap` is how much a track and a detection must overlap at least.

    A track counts once it has `confirm_hits` detections within `confirm_within_s`. Without one for `coast_s` it is
    lost, for longer than `lost_after_s` it is over. A track has detections of one label, unless `class_agnostic`.
    """

    high_score: Share = 0.5
    low_score: Share = 0.1
    begin_score: Share = 0.6
    min_overlap: Annotated[float, Meta(gt=0, lt=1)] = 0.25
    confirm_hits: Annotated[int, Meta(ge=1, le=100)] = 3
    confirm_within_s: Seconds = 2.0
    coast_s: Seconds = 0.5
    lost_after_s: Seconds = 2.0
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        if not self.low_score <= self.high_score <= self.begin_score:
            raise ValueError(
                f"low_score {self.low_score:g}, high_score {self.high_score:g} and begin_score {self.begin_score:g} "
                "do not rise: what begins a track must be sure enough to be looked for first. Write them in that order."
            )
        if self.coast_s > self.lost_after_s:
            raise ValueError(
                f"coast_s {self.coast_s:g} is longer than lost_after_s {self.lost_after_s:g}: a track would be over "
                "before it is lost. Lower coast_s or raise lost_after_s."
            )
