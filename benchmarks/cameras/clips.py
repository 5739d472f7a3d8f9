"""The clips out of the assets folder, as cameras would send them: encoded once, looped by the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.cameras.detector import assets
from benchmarks.rtsp.clips import pictures_of, write_clip

Picture = npt.NDArray[np.uint8]

VTEST_FPS, BIKES_FPS = 10, 25
LEAN_BITS = 700_000
_NOISE = 3.0
"""Levels of grey, of a sensor in the evening."""


def vtest(directory: Path, *, most: int = 1 << 30) -> Path:
    return _written(directory / f"vtest-{most}.clip", pictures_of(_vtest(), most=most), VTEST_FPS)


def lean(directory: Path) -> Path:
    """As a camera sends it that saves bits: less than the file itself has."""
    return _written(directory / "lean.clip", pictures_of(_vtest()), VTEST_FPS, bit_rate=LEAN_BITS)


def bikes(directory: Path) -> Path:
    return _written(directory / "bikes.clip", pictures_of(assets() / "video/bikes.mp4"), BIKES_FPS)


def frozen(directory: Path, *, seconds: float = 4.0) -> Path:
    """One picture, the same to the last bit, as an encoder sends it whose sensor hangs."""
    first = next(pictures_of(_vtest()))
    return _written(directory / "frozen.clip", (first for _ in range(round(seconds * VTEST_FPS))), VTEST_FPS)


def small(directory: Path) -> Path:
    """As after somebody has chosen another resolution in the camera's menu."""
    halves = (_halved(picture) for picture in pictures_of(_vtest(), most=200))
    return _written(directory / "small.clip", halves, VTEST_FPS)


def stills_mp4(directory: Path, *, moving_s: float, still_s: float, times: int) -> Path:
    """`moving_s` of the square, then its last picture held for `still_s` under the noise of a sensor, and so on."""
    path = directory / f"stills-{still_s:g}.mp4"
    if not path.exists():
        with av.open(str(path), "w") as container:
            stream = cast(av.VideoStream, container.add_stream("libx264", rate=VTEST_FPS))
            stream.width, stream.height, stream.pix_fmt = 768, 576, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "20"}
            for picture in _interleaved(moving_s, still_s, times):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
            container.mux(stream.encode(None))
    return path


def _interleaved(moving_s: float, still_s: float, times: int) -> Iterator[Picture]:
    rng = np.random.default_rng(1)
    moving, still = round(moving_s * VTEST_FPS), round(still_s * VTEST_FPS)
    for number, picture in enumerate(pictures_of(_vtest(), most=moving * times), 1):
        yield _noisy(picture, rng)
        if number % moving == 0:
            for _ in range(still):
                yield _noisy(picture, rng)


def _noisy(picture: Picture, rng: np.random.Generator) -> Picture:
    noise = rng.normal(0.0, _NOISE, picture.shape).astype(np.float32)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _halved(picture: Picture) -> Picture:
    return np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _vtest() -> Path:
    return assets() / "video/vtest.avi"


def _written(path: Path, pictures: Iterator[Picture], fps: int, bit_rate: int = 2_000_000) -> Path:
    if not path.exists():
        write_clip(path, pictures, fps=fps, bit_rate=bit_rate)
    return path
