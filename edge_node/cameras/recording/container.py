"""Encoded pictures into fragmented MP4, as they are: all that recording asks of FFmpeg."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from typing import NamedTuple, Protocol, cast, get_args

import av
import av.error
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from edge_node.cameras.recording.parameter_sets import Codec

CODECS: tuple[Codec, ...] = get_args(Codec)
CLOCK_BASE = Fraction(1, 90_000)
"""Ticks where the stream's own are not asked."""

_HVC1 = "hvc1"
"""Apple's players take H.265 under no other tag."""
_OPTIONS = {
    # Nothing is written twice and nothing needs the end of the file first; the header waits for the first pictures,
    # because only then it is known by how much showing them lags behind decoding.
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "min_frag_duration": "500000",
    "frag_duration": "5000000",
}
_BUFFER_BYTES = 256 << 10


class Unrecordable(Exception):  # noqa: N818 - it names what the camera sends, not a mistake
    """What a camera sends cannot be put into a clip as it is."""


class Sink(Protocol):
    def write(self, data: bytes) -> int: ...


class Picture(NamedTuple):
    """One encoded picture; `dts` and `pts` in ticks of its stream."""

    data: bytes
    dts: int
    pts: int
    key: bool


class Parameters:
    """All that is to be known of a stream to put its pictures into a file, after the stream itself has gone.

    Raises Unrecordable.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.codec = _codec(stream.codec_context.name)
        # A file that is never begun keeps the parameters; FFmpeg frees those of the stream when its camera goes.
        self._holder = av.open(io.BytesIO(), "w", format="mp4")
        self._stream = _added(self._holder, stream)
        own = self.codec != "mjpeg" and stream.time_base
        self.base = stream.time_base if own and stream.time_base else CLOCK_BASE
        self.by_clock = self.codec == "mjpeg"
        extradata = self._stream.codec_context.extradata or b""
        self.sets_in_band = self.codec in ("h264", "hevc") and extradata[:1] != b"\x01"
        """Packets have start codes, and keyframes bring their parameter sets. Else they have lengths, as in MP4."""

    def begin(self, file: Sink, sets: bytes, keyframe: bytes) -> Film:
        """A film whose first picture is `keyframe`; `sets` are its own parameter sets, where it brought some."""
        return Film(file, self, sets, keyframe)

    @property
    def stream(self) -> VideoStream:
        return self._stream


class Film:
    """An MP4 that grows. `file` needs `write` alone; what it raises comes out of `add` and `close`.

    `width` and `height` are those of the pictures, in pixels. Raises Unrecordable.
    """

    def __init__(self, file: Sink, parameters: Parameters, sets: bytes, keyframe: bytes) -> None:
        self._container = av.open(file, "w", format="mp4", options=_OPTIONS, buffer_size=_BUFFER_BYTES)
        self._stream = _added(self._container, parameters.stream)
        self._base = parameters.base
        self._stream.time_base = parameters.base
        context = self._stream.codec_context
        if parameters.codec == "hevc":
            context.codec_tag = _HVC1
        if parameters.sets_in_band and sets:
            context.extradata = sets
        if parameters.sets_in_band or parameters.codec == "mjpeg":
            _resize(context, parameters.codec, keyframe)
        self.width, self.height = context.width, context.height

    def add(self, pictures: Iterable[Picture]) -> None:
        """Raises Unrecordable for what FFmpeg refuses."""
        try:
            for picture in pictures:
                self._container.mux(self._packet(picture))
        except (av.error.FFmpegError, ValueError) as error:
            raise _unrecordable(error) from error

    def close(self) -> None:
        """Writes the last pictures. Raises Unrecordable."""
        try:
            self._container.close()
        except (av.error.FFmpegError, ValueError) as error:
            raise _unrecordable(error) from error

    def abandon(self) -> None:
        """Lets go of FFmpeg's buffers, whatever their file says to what is still in them."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()

    def _packet(self, picture: Picture) -> av.Packet[VideoStream]:
        packet = cast("av.Packet[VideoStream]", av.Packet(picture.data))
        packet.stream = self._stream
        packet.time_base = self._base
        packet.dts, packet.pts = picture.dts, picture.pts
        packet.is_keyframe = picture.key
        return packet


def _codec(name: str) -> Codec:
    """From the name of a decoder, which may say on what it runs: h264_cuvid, hevc_qsv."""
    for codec in CODECS:
        if name == codec or name.startswith(f"{codec}_"):
            return codec
    raise Unrecordable(f"{name} cannot be recorded as it is: set the camera to one of {', '.join(CODECS)}")


def _added(container: av.container.OutputContainer, template: VideoStream) -> VideoStream:
    """`opaque`: with the template's own codec, so that no encoder of that kind needs to be there."""
    try:
        return container.add_stream_from_template(template, opaque=True)
    except (av.error.FFmpegError, ValueError) as error:
        raise _unrecordable(error) from error


def _resize(context: VideoCodecContext, codec: Codec, keyframe: bytes) -> None:
    """To the size of what is really sent: the camera may have changed it since the stream was opened."""
    decoder = av.CodecContext.create(codec, "r")
    # Decoders read some bytes beyond a packet's end: one of a size has them, one around bytes has not.
    packet = cast("av.Packet[VideoStream]", av.Packet(len(keyframe)))
    packet.update(keyframe)
    try:
        frames = [*decoder.decode(packet), *decoder.decode(None)]
    except av.error.FFmpegError:
        return
    if frames:
        context.width, context.height = frames[0].width, frames[0].height


def _unrecordable(error: Exception) -> Unrecordable:
    return Unrecordable(f"FFmpeg makes no clip of it: {error}")
