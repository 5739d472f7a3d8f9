"""What a node says of how its versions serve: totals of the epoch that it lives in."""

from __future__ import annotations

from collections.abc import Callable

from contracts.messages import Vitals
from contracts.quality import Counts


class QualityTold:
    """`counts` gives what was counted since the process began, by digest."""

    def __init__(self, counts: Callable[[], dict[str, Counts]]) -> None:
        self._counts = counts
        self._before: dict[str, Counts] = {}

    def now(self) -> dict[str, Counts]:
        """Of the present epoch, of versions that have done anything in it."""
        found = {digest: counts.minus(self._before.get(digest, Counts())) for digest, counts in self._counts().items()}
        return {digest: counts for digest, counts in found.items() if counts is not None and counts.is_some}

    def begin_epoch(self) -> None:
        """What was told in the last one is not told again: whoever listens adds epochs up."""
        self._before = self._counts()


def is_strained(vitals: Vitals, *, least_memory_bytes: int, least_disk_bytes: int) -> bool:
    """Whether a machine is short of something, or slowed down against heat; not where it does not say."""
    memory, disk = vitals.free_memory_bytes, vitals.free_disk_bytes
    short = (memory is not None and memory < least_memory_bytes) or (disk is not None and disk < least_disk_bytes)
    return short or vitals.throttled is True
