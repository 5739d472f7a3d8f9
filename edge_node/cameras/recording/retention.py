"""Which clips go, and when: by age, by bytes, the oldest first. No files here, only what is known of them."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from edge_node.cameras.recording.clip import ClipName
from edge_node.cameras.recording.config import Limits

DAY_S = 86_400.0
SET_CLOCK_S = 1_600_000_000.0
"""No clock that was ever set shows less. A clip from before has no age, but is older than all others."""


class Kept(NamedTuple):
    """A clip on the disk. `at_s`: when it begins, unix time; `bytes` of both of its files. Sorts by age."""

    at_s: float
    name: ClipName
    bytes: int
    keep: bool = False


class Bounds(NamedTuple):
    keep_days: float
    keep_bytes: int


class Ledger:
    """All clips of a node, the oldest first. `cameras` are the bounds of cameras that have some of their own."""

    def __init__(self, node: Bounds, cameras: Mapping[str, Limits]) -> None:
        self._node = node
        self._cameras = cameras
        self._clips: list[Kept] = []
        self._by_name: dict[ClipName, Kept] = {}
        self._bytes: Counter[str] = Counter()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, kept: Kept) -> None:
        """In the place of one with the same name."""
        self.remove(kept.name)
        bisect.insort(self._clips, kept)
        self._by_name[kept.name] = kept
        self._count(kept, +1)

    def remove(self, name: ClipName) -> None:
        known = self._by_name.pop(name, None)
        if known is not None:
            del self._clips[bisect.bisect_left(self._clips, known)]
            self._count(known, -1)

    def find(self, name: ClipName) -> Kept | None:
        return self._by_name.get(name)

    def of(self, camera: str) -> int:
        """The bytes of a camera's clips."""
        return self._bytes[camera]

    def newest_first(self) -> Iterator[Kept]:
        return reversed(self._clips)

    def overdue(self, now_s: float) -> list[Kept]:
        """What is too old at `now_s`, unix time."""
        if now_s < SET_CLOCK_S:
            return []
        return [kept for kept in self._clips if not kept.keep and self._too_old(kept, now_s)]

    def way_for(self, camera: str, own: int, all_: int, missing: int) -> list[Kept] | None:
        """What must go before `camera` may have `own` bytes and all cameras together `all_`, besides what is here, and
        `missing` bytes of the disk are free. None: going would not be enough, and then nothing should."""
        limits = self._cameras.get(camera)
        goes: list[Kept] = []
        if limits is not None and limits.keep_bytes is not None:
            over = self.of(camera) + own - limits.keep_bytes
            if not _take_oldest(over, (kept for kept in self._clips if kept.name.camera == camera), goes):
                return None
        known = set(goes)
        over = max(self.bytes + all_ - self._node.keep_bytes, missing) - sum(kept.bytes for kept in goes)
        if not _take_oldest(over, (kept for kept in self._clips if kept not in known), goes):
            return None
        return goes

    def _too_old(self, kept: Kept, now_s: float) -> bool:
        own = self._cameras.get(kept.name.camera)
        days = (
            self._node.keep_days if own is None or own.keep_days is None else min(own.keep_days, self._node.keep_days)
        )
        return SET_CLOCK_S <= kept.at_s < now_s - days * DAY_S

    def _count(self, kept: Kept, sign: int) -> None:
        self.bytes += sign * kept.bytes
        self._bytes[kept.name.camera] += sign * kept.bytes


def _take_oldest(wanted: int, clips: Iterable[Kept], into: list[Kept]) -> bool:
    """Whether `wanted` bytes were found in clips that may go."""
    for kept in clips:
        if wanted <= 0:
            break
        if not kept.keep:
            into.append(kept)
            wanted -= kept.bytes
    return wanted <= 0


class SettledClock:
    """A wall clock that is believed only once it has run evenly for a while.

    Clips are deleted by their age: a clock that shows the wrong year for a minute must not cost any.
    """

    SETTLES_S = 600.0
    _UNEVEN_S = 60.0

    def __init__(self, now_s: float, running_s: float) -> None:
        self._offset_s = now_s - running_s
        self._since_s = running_s

    def believed(self, now_s: float, running_s: float) -> bool:
        """`now_s` by the wall clock, `running_s` by one that nobody sets."""
        if abs(now_s - running_s - self._offset_s) > self._UNEVEN_S:
            self._offset_s, self._since_s = now_s - running_s, running_s
        return running_s - self._since_s >= self.SETTLES_S
