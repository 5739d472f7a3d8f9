"""From packets to pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_node.cameras.sources.source import Corrupt
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Wishes

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_MOST_CORRUPT = 250
"""So many packets in a row that give no picture are no stream."""


class Decoder:
    """Sets `context` up as it is wished."""

    def __init__(self, context: VideoCodecContext, wishes: Wishes, corrupt: Corrupt) -> None:
        self.context = context
        self._keyframes_only = wishes.keyframes_only
        self._corrupt = corrupt
        self._fruitless = 0
        context.thread_count = wishes.decoder_threads
        if wishes.keyframes_only:
            context.skip_frame = "NONKEY"

    def pictures(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        """Broken packets are a matter of course on radio and UDP: the next keyframe mends what they leave behind.

        Raises Trouble where nothing but those come.
        """
        whole = self._whole(packet)
        self._fruitless = 0 if whole else self._fruitless + 1
        if self._fruitless > _MOST_CORRUPT and not self._keyframes_only:
            raise Trouble("lost", f"nothing of {self._fruitless} packets in a row can be decoded")
        return whole

    def _whole(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        from av.error import FFmpegError

        try:
            frames = self.context.decode(packet)
        except FFmpegError:
            self._corrupt()
            return []
        whole = [frame for frame in frames if not frame.is_corrupt]
        for _ in range(len(frames) - len(whole)):
            self._corrupt()
        return whole
