"""What all sources have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edge_node.cameras.sources.shot import Shot

if TYPE_CHECKING:
    from av import Packet
    from av.video.stream import VideoStream


class Facts(NamedTuple):
    """Of an open source, for people: `codec` as FFmpeg calls it, `hardware` "" where software decodes."""

    codec: str
    hardware: str = ""


class Tap(Protocol):
    """Sees what is encoded before it is decoded, in the thread of the source."""

    def begin(self, stream: VideoStream) -> None:
        """What follows is encoded as this stream says, until the next word of this kind."""
        ...

    def put(self, packet: Packet[VideoStream], at_s: float) -> None:
        """`at_s` is about when it was taken, in unix time, by the clock that pictures are stamped with."""
        ...

    def refuse(self, why: str) -> None:
        """Nothing encoded will come."""
        ...


class Source(Protocol):
    """Opened; to be read and closed by one thread."""

    @property
    def facts(self) -> Facts: ...

    @property
    def received_bytes(self) -> int:
        """Of encoded pictures, so far; 0 where nothing was encoded."""
        ...

    def shots(self, stopped: threading.Event) -> Iterator[Shot]:
        """Until it is `stopped`, which may take as long as a stall. Raises Trouble, also for an end."""
        ...

    def close(self) -> None: ...


Corrupt = Callable[[], None]
"""Told of each piece that could not be decoded."""
