"""What recording counts, for whoever shows it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, get_args

DropReason = Literal["busy", "camera", "codec", "gone", "no-room", "disk", "failed"]
"""Of a clip that was asked for. `busy`: more was asked for at once than is kept in mind; `camera`: nothing is recorded
of that camera; `codec`: what it sends cannot be recorded as it is; `gone`: the ring has nothing of that time;
`no-room`; `disk`: it fails; `failed`: a fault of the node's own, with a line in its log."""

DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)


class RecordingCounts:
    """Clips written, their bytes, and requests that no clip came of. Any thread may count."""

    def __init__(self) -> None:
        self.clips = 0
        self.bytes = 0
        self.cut_short = 0
        self.dropped: Counter[DropReason] = Counter()
        self._lock = threading.Lock()

    def wrote(self, size: int, *, cut_short: bool) -> None:
        with self._lock:
            self.clips += 1
            self.bytes += size
            self.cut_short += cut_short

    def drop(self, reason: DropReason, count: int = 1) -> None:
        with self._lock:
            self.dropped[reason] += count
