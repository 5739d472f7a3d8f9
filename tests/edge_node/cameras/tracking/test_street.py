"""Real people on a real camera, from FOOTHILL_ASSETS: ids hold while pictures are left out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.tracker import Tracker
from runtime.serving.models.found import Found
from tests.edge_node.cameras.tracking.figures import Figures, Named, figures

pytestmark = [pytest.mark.assets, pytest.mark.timeout(300)]

FPS = 10


@cache
def detected(assets: str) -> tuple[tuple[float, Found], ...]:
    """Capture time and people of every picture of vtest.avi, as a small person detector sees them."""
    import av
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = Path(assets) / "models" / "pedestrian_ssdlite.onnx"
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs = ["detection_boxes:0", "detection_scores:0"]
    seen = []
    with av.open(str(Path(assets) / "video" / "vtest.avi")) as video:
        for frame in video.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            boxes, scores = session.run(outputs, {"image_tensor:0": picture[None]})
            seen.append((float(frame.time), found(boxes[0], scores[0], frame.width, frame.height)))
    return tuple(seen)


def found(boxes: np.ndarray, scores: np.ndarray, width: int, height: int) -> Found:
    """From top, left, bottom, right in shares of the picture."""
    kept = scores >= 0.1
    pixels = boxes[kept][:, [1, 0, 3, 2]] * [width, height, width, height]
    return Found(pixels.astype(np.float32), scores[kept], np.zeros(int(kept.sum()), np.int32))


@pytest.fixture
def street() -> tuple[tuple[float, Found], ...]:
    assets = os.environ.get("FOOTHILL_ASSETS")
    if not assets:
        pytest.skip("set FOOTHILL_ASSETS to the directory of the shared assets")
    return detected(assets)


def tracked(street: tuple[tuple[float, Found], ...], looks_at: Callable[[int], bool]) -> dict[int, Named]:
    """Which tracks are where, by the number of the picture, when only some pictures are looked at."""
    tracker, told = Tracker(TrackerConfig(), ["person"]), dict[int, Named]()
    for number, (at_s, people) in enumerate(street):
        if looks_at(number):
            tracker.update(people, at_s)
            told[number] = {track.id: track.box for track in tracker.tracks if track.state == "confirmed"}
    return told


def beside_all(street: tuple[tuple[float, Found], ...], looks_at: Callable[[int], bool]) -> Figures:
    """As if the tracks over all pictures were the truth."""
    everything, some = tracked(street, lambda _: True), tracked(street, looks_at)
    return figures((everything[number], told) for number, told in some.items())


def test_people_are_told_apart(street: tuple[tuple[float, Found], ...]) -> None:
    told = tracked(street, lambda _: True)
    lengths_s = {track: sum(track in now for now in told.values()) / FPS for now in told.values() for track in now}
    assert 30 <= len(lengths_s) <= 75
    assert np.median(list(lengths_s.values())) > 4
    assert 4 < np.mean([len(now) for now in told.values()]) < 9


@pytest.mark.parametrize(
    ("looks_at", "idf1", "mota"),
    [
        (lambda number: number % 2 == 0, 0.65, 0.75),
        (lambda number: number % 30 >= 5, 0.7, 0.85),
        (lambda number: number % 50 >= 10, 0.7, 0.85),
        (lambda number: number % 60 >= 19, 0.55, 0.8),
    ],
    ids=["every second picture", "gaps of half a second", "gaps of a second", "gaps of just lost_after_s"],
)
def test_ids_hold_while_pictures_are_left_out(
    street: tuple[tuple[float, Found], ...], looks_at: Callable[[int], bool], idf1: float, mota: float
) -> None:
    got = beside_all(street, looks_at)
    assert got.idf1 > idf1
    assert got.mota > mota
    assert got.tracks < 1.4 * got.objects


def test_a_still_minute_ends_no_track(street: tuple[tuple[float, Found], ...]) -> None:
    tracker = Tracker(TrackerConfig())
    for at_s, people in street[:300]:
        tracker.update(people, at_s)
    before = [track.id for track in tracker.tracks]
    assert len(before) > 3
    for second in range(1, 60):
        tracker.tick(street[299][0] + second, still=True)
    assert [track.id for track in tracker.tracks] == before
    changes = tracker.update(street[300][1], street[299][0] + 59.1)
    assert not changes.ended
    assert len(changes.updated) > 3


def test_a_picture_of_the_street_takes_less_than_two_milliseconds(street: tuple[tuple[float, Found], ...]) -> None:
    tracker, taken_s = Tracker(TrackerConfig()), []
    for at_s, people in street:
        began_s = time.perf_counter()
        tracker.update(people, at_s)
        taken_s.append(time.perf_counter() - began_s)
    assert np.median(taken_s) < 2e-3
