"""Pictures that say which they are: a film in which a bright block is to be seen for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

FPS = 20
SECONDS = 9
BLOCK = range(4 * FPS, 6 * FPS)
"""The pictures that show it."""
_BITS, _CELL = 9, 16


def pictures() -> Iterator[npt.NDArray[np.uint8]]:
    """uint8 [240, 320, 3]: the number of each stands in cells at its foot, too dim to be found by a detector."""
    rng = np.random.default_rng(3)
    ground = rng.integers(40, 70, (240, 320, 3), np.uint8)
    for number in range(SECONDS * FPS):
        picture = ground.copy()
        for bit in range(_BITS):
            picture[-_CELL:, bit * _CELL : (bit + 1) * _CELL] = 100 if number >> bit & 1 else 0
        if number in BLOCK:
            left = 40 + 4 * (number - BLOCK.start)
            picture[80:120, left : left + 24] = 240
        yield picture


def number_of(picture: npt.NDArray[np.uint8]) -> int:
    cells = picture[-_CELL:, : _BITS * _CELL].mean(axis=(0, 2)).reshape(_BITS, _CELL)[:, 4:-4].mean(axis=1)
    return int(sum(1 << bit for bit, light in enumerate(cells) if light > 50))


def numbers(video: Path) -> list[int]:
    """Of all pictures of a video; any error in decoding raises."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        return [number_of(frame.to_ndarray(format="bgr24")) for frame in container.decode(stream)]


def write(path: Path) -> Path:
    """As H.264 with a keyframe every second."""
    with av.open(str(path), "w", format="mp4") as out:
        options = {"preset": "veryfast", "bf": "0", "g": str(FPS), "sc_threshold": "0"}
        stream: Any = out.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
        for picture in pictures():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        out.mux(stream.encode(None))
    return path
