"""The clip, encoded as a camera would send it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av

from foothill.simulators.rtsp import Clip, clip_of

_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "bf": "0", "g": "50", "crf": "23"}


def encoded(video: bytes) -> Clip:
    """H.264 of a video file of any kind, its parameter sets before each keyframe, at its own pace."""
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        return clip_of(_packets(container.decode(stream), round(fps)), fps)


def _packets(frames: Iterator[av.VideoFrame], fps: int) -> Iterator[bytes]:
    encoder: av.VideoCodecContext | None = None
    for frame in frames:
        if encoder is None:
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
            encoder.framerate = fps  # type: ignore[assignment]
            encoder.options = dict(_OPTIONS)
        picture = frame.to_ndarray(format="yuv420p")  # without the times and kinds that it had in the file
        yield from map(bytes, encoder.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
    if encoder is not None:
        yield from map(bytes, encoder.encode(None))
