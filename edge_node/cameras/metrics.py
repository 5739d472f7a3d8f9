"""What cameras do, as Prometheus metrics: read when they are asked for. The labels are the cameras that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_node.cameras.camera import Camera
from edge_node.cameras.figures import BOUNDS_S, Figures
from edge_node.cameras.outlets.outlets import Waiting
from edge_node.cameras.states import State

_NAMES = (*map(str, BOUNDS_S), "+Inf")


class CameraMetrics(Collector):
    """Counts are since a camera was added, or changed. `lost_events` tells how many gave way, by outlet,
    `waiting_events` how many wait, and `lost_snapshots` how many pictures of events were not kept."""

    def __init__(
        self,
        there: Mapping[str, Camera],
        lost_events: Callable[[], Mapping[str, int]],
        waiting_events: Callable[[], Mapping[str, Waiting]],
        lost_snapshots: Callable[[], int],
    ) -> None:
        self._there = there
        self._lost_events = lost_events
        self._waiting_events = waiting_events
        self._lost_snapshots = lost_snapshots

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("foothill_camera_state", "1: how a camera is", labels=("camera", "state"))
        rates = GaugeMetricFamily("foothill_camera_fps", "Pictures decoded a second, of late", labels=("camera",))
        attempts = CounterMetricFamily("foothill_camera_attempts_total", "Attempts to open it", labels=("camera",))
        pictures = CounterMetricFamily(
            "foothill_camera_pictures_total", "Pictures, by what became of them", labels=("camera", "what")
        )
        events = CounterMetricFamily("foothill_camera_events_total", "What was said", labels=("camera", "type"))
        times = HistogramMetricFamily("foothill_camera_latency_seconds", "From capture to result", labels=("camera",))
        judged = CounterMetricFamily(
            "foothill_camera_judged_total", "Tracks and pictures, by what became of doubts", labels=("camera", "became")
        )
        sent = CounterMetricFamily(
            "foothill_camera_sent_total", "Pictures that left the box, by purpose", labels=("camera", "what")
        )
        sizes = CounterMetricFamily(
            "foothill_camera_bytes_total",
            "Bytes of pictures that left the box, by purpose; raw: of the stream, which uploading it would have cost",
            labels=("camera", "what"),
        )
        for name, camera in list(self._there.items()):
            for state in get_args(State):
                states.add_metric((name, state), camera.state.state == state)
            rates.add_metric((name,), camera.fps)
            attempts.add_metric((name,), camera.reader.seen.attempts)
            for what, count in _pictures(camera).items():
                pictures.add_metric((name, what), count)
            for kind, count in camera.figures.events.items():
                events.add_metric((name, kind), count)
            times.add_metric((name,), *_histogram(camera.figures))
            for became, count in camera.figures.judged.items():
                judged.add_metric((name, became), count)
            for what, count in camera.figures.sent.items():
                sent.add_metric((name, what), count)
            for what, size in {"raw": camera.reader.seen.received_bytes, **camera.figures.sent_bytes}.items():
                sizes.add_metric((name, what), size)
        yield from (states, rates, attempts, pictures, events, times, judged, sent, sizes)
        yield from self._of_outlets()

    def _of_outlets(self) -> Iterator[Metric]:
        lost = CounterMetricFamily(
            "foothill_camera_events_lost_total", "Events that gave way while nobody took them", labels=("outlet",)
        )
        waiting = GaugeMetricFamily(
            "foothill_camera_events_waiting", "Events that nobody has taken yet, by where", labels=("outlet", "where")
        )
        for outlet, count in self._lost_events().items():
            lost.add_metric((outlet,), count)
        for outlet, told in self._waiting_events().items():
            waiting.add_metric((outlet, "disk"), told.disk)
            waiting.add_metric((outlet, "memory"), told.memory)
        snapshots = CounterMetricFamily(
            "foothill_camera_snapshots_lost_total", "Snapshots of events that could not be kept"
        )
        snapshots.add_metric((), self._lost_snapshots())
        yield from (lost, waiting, snapshots)


def _pictures(camera: Camera) -> dict[str, int]:
    seen, figures = camera.reader.seen, camera.figures
    counted = {
        "decoded": seen.decoded,
        "corrupt": seen.corrupt,
        "skipped": seen.skipped,
        "given-way": figures.given_way,
        "still": figures.gated["still"],
        "inferred": figures.inferred,
    }
    return {**counted, **figures.dropped}


def _histogram(figures: Figures) -> tuple[list[tuple[str, float]], float]:
    within = accumulate(map(float, figures.by_latency))
    return list(zip(_NAMES, within, strict=True)), figures.latency_s
