"""What cameras do, as Prometheus metrics: read when they are asked for. The labels are the cameras that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_node.cameras.camera import Camera
from edge_node.cameras.figures import BOUNDS_S, Figures
from edge_node.cameras.states import State

_NAMES = (*map(str, BOUNDS_S), "+Inf")


class CameraMetrics(Collector):
    """Counts are since a camera was added, or changed. `lost_events` tells how many gave way, by outlet."""

    def __init__(self, there: Mapping[str, Camera], lost_events: Callable[[], Mapping[str, int]]) -> None:
        self._there = there
        self._lost_events = lost_events

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("foothill_camera_state", "1: how a camera is", labels=("camera", "state"))
        rates = GaugeMetricFamily("foothill_camera_fps", "Pictures decoded a second, of late", labels=("camera",))
        attempts = CounterMetricFamily("foothill_camera_attempts_total", "Attempts to open it", labels=("camera",))
        pictures = CounterMetricFamily(
            "foothill_camera_pictures_total", "Pictures, by what became of them", labels=("camera", "what")
        )
        events = CounterMetricFamily("foothill_camera_events_total", "What was said", labels=("camera", "type"))
        times = HistogramMetricFamily("foothill_camera_latency_seconds", "From capture to result", labels=("camera",))
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
        lost = CounterMetricFamily(
            "foothill_camera_events_lost_total", "Events that gave way while nobody took them", labels=("outlet",)
        )
        for outlet, count in self._lost_events().items():
            lost.add_metric((outlet,), count)
        yield from (states, rates, attempts, pictures, events, times, lost)


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
