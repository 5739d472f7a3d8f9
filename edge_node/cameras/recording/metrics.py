"""What recording counts, for whoever shows it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from edge_node.cameras.recording.ring import Ring

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


class RecordingMetrics(Collector):
    """Counts are since the node started. `taken_bytes` of the disk; `rings` by camera."""

    def __init__(
        self, counts: RecordingCounts, taken_bytes: Callable[[], int], rings: Callable[[], Mapping[str, Ring]]
    ) -> None:
        self._counts = counts
        self._taken_bytes = taken_bytes
        self._rings = rings

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        yield CounterMetricFamily("foothill_clips_total", "Clips written", counts.clips)
        yield CounterMetricFamily("foothill_clip_bytes_total", "Bytes of clips written", counts.bytes)
        yield CounterMetricFamily("foothill_clips_cut_short_total", "Clips that end too early", counts.cut_short)
        dropped = CounterMetricFamily("foothill_clips_dropped_total", "Asked for, and not there", labels=("reason",))
        for reason in DROP_REASONS:
            dropped.add_metric((reason,), counts.dropped[reason])
        yield dropped
        yield GaugeMetricFamily("foothill_clips_disk_bytes", "Of the disk, taken by clips", self._taken_bytes())
        yield from self._of_rings()

    def _of_rings(self) -> Iterator[Metric]:
        seconds = GaugeMetricFamily("foothill_camera_ring_seconds", "Kept in memory", labels=("camera",))
        size = GaugeMetricFamily("foothill_camera_ring_bytes", "Memory of a camera's ring", labels=("camera",))
        lost = CounterMetricFamily("foothill_camera_ring_lost_total", "Pictures of no use to it", labels=("camera",))
        for camera, ring in list(self._rings().items()):
            told = ring.figures()
            seconds.add_metric((camera,), told.seconds)
            size.add_metric((camera,), told.bytes)
            lost.add_metric((camera,), told.lost)
        yield from (seconds, size, lost)
