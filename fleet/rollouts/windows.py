"""Maintenance windows: when a node may be told to change, by the clock on its own wall."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Minute = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `start` until `end`, local times as `HH:MM`, on each of `days`. One that ends at or before its start goes on
    into the next day, and belongs to the day on which it began. `zone` is a name of the IANA time zone database."""

    start: Minute
    end: Minute
    zone: str = "UTC"
    days: tuple[Day, ...] = _DAYS

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{self.zone[:80]!r} is no time zone: name one as Europe/Berlin") from error
        if not self.days:
            raise ValueError("a window on no day never opens: name days, or leave them out for all")

    def is_open(self, at_s: float) -> bool:
        """Whether it is at unix time `at_s`. The hour that a clock change leaves out is not there; the one that it
        repeats is there twice."""
        local = datetime.fromtimestamp(at_s, ZoneInfo(self.zone))
        now, start, end = local.strftime("%H:%M"), self.start, self.end
        today, yesterday = _DAYS[local.weekday()], _DAYS[(local - timedelta(days=1)).weekday()]
        if start < end:
            return today in self.days and start <= now < end
        return (today in self.days and now >= start) or (yesterday in self.days and now < end)
