"""One picture, looked at by many."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edge_node.cameras.sources.shot import Colour, Colouring, Decoded, Still
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size
from tests.edge_node.cameras.escalation.street import write_mp4

COLOURS: tuple[Colour, ...] = ("rgb", "bgr", "grey", "bgr")


def test_threads_that_look_at_the_pictures_of_one_source_see_the_same(tmp_path: Path) -> None:
    """Without the lock FFmpeg's converter, which they share, crashes the process within a few pictures."""
    write_mp4(tmp_path / "clip.mp4")
    colouring, small = Colouring(), Size(160, 120)

    def looked(shot: Decoded) -> list[Array]:
        return [shot.picture(colour) for colour in COLOURS] + [shot.picture("rgb", small)]

    with av.open(str(tmp_path / "clip.mp4")) as container:
        shots = [Decoded(frame, 0.0, number, colouring) for number, frame in enumerate(container.decode(video=0))]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(looked, [shot for shot in shots for _ in range(2)]))
    for number, shot in enumerate(shots):
        alone = Decoded(shot._frame, 0.0, 0, Colouring())
        for one, other in zip(looked(alone), at_once[2 * number], strict=True):
            assert np.array_equal(one, other)
        rgb, bgr, grey, again, _ = at_once[2 * number + 1]
        assert np.array_equal(bgr, again)
        assert np.array_equal(rgb, bgr[:, :, ::-1])
        assert grey.shape == (240, 320)


def test_no_thread_is_started_for_a_picture(tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frame = next(container.decode(video=0))
        before = set(os.listdir("/proc/self/task"))
        shot = Decoded(frame, 0.0, 0, Colouring())
        shot.picture("rgb", Size(100, 75))
        shot.picture("bgr")
        assert set(os.listdir("/proc/self/task")) == before


@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("size", [Size(160, 120), Size(100, 75), Size(300, 90)])
def test_a_smaller_picture_is_the_average_of_its_areas(colour: Colour, size: Size) -> None:
    rows, columns = np.mgrid[:240, :320]
    rgb = np.stack((rows, columns // 2, 255 - rows), axis=2).astype(np.uint8)
    rgb[40:160, 60:90] = 250
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    decoded = Decoded(frame, 0.0, 1, Colouring())
    for shot in (decoded, Still(decoded.picture("bgr"), 0.0, 1)):
        small = shot.picture(colour, size)
        whole = cv2.resize(shot.picture(colour), size, interpolation=cv2.INTER_AREA)
        assert small.shape == whole.shape
        assert np.abs(small.astype(float) - whole).mean() < 1.5
