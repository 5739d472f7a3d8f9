"""The last seconds of a camera as it sent them, in memory: where a clip's beginning comes from."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from edge_node.cameras.recording.container import Parameters, Picture, Unrecordable
from edge_node.cameras.recording.parameter_sets import parameter_sets
from edge_node.cameras.recording.timeline import Timeline

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

ENTRY_BYTES = 256
"""What an entry takes besides its picture: a bound in bytes must hold for very small pictures too."""

MOST_SEGMENTS = 4
"""A camera that comes and goes leaves no more of them: each keeps some FFmpeg of its own."""


class Entry(NamedTuple):
    """`number` rises by one from picture to picture of a ring; `at_s` is the unix time of capture."""

    number: int
    picture: Picture
    at_s: float


class Segment:
    """An unbroken stream: one codec, one size, one timeline. `sets`: see parameter_sets.py; of its first keyframe.

    `order` rises from segment to segment of a ring.
    """

    def __init__(self, order: int, parameters: Parameters, sets: bytes = b"") -> None:
        self.order = order
        self.parameters = parameters
        self.timeline = Timeline(parameters.base, by_clock=parameters.by_clock)
        self.sets = sets
        self._tick_s = float(parameters.base)

    def ticks(self, seconds: float) -> int:
        return int(seconds / self._tick_s)

    def seconds(self, ticks: int) -> float:
        return ticks * self._tick_s


class Group:
    """A keyframe and what follows it up to the next: kept as a whole, and gone as a whole."""

    __slots__ = ("bytes", "entries", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.entries: list[Entry] = []
        self.bytes = 0

    def add(self, entry: Entry) -> int:
        """How many bytes that took."""
        self.entries.append(entry)
        size = len(entry.picture.data) + ENTRY_BYTES
        self.bytes += size
        return size

    @property
    def seconds(self) -> float:
        first, last = self.entries[0].picture.dts, self.entries[-1].picture.dts
        return self.segment.seconds(last - first)


class Mark(NamedTuple):
    """A moment in a ring: `dts` in ticks of `segment`. `early_s`: how much older than the ring the moment was."""

    segment: Segment
    dts: int
    early_s: float


class Reading(NamedTuple):
    """`gone`: the ring had to let go of pictures before they were read. `over`: the segment brings no more."""

    entries: list[Entry]
    gone: bool
    over: bool


class Figures(NamedTuple):
    """`lost` counts pictures that came without a keyframe before them, or with more behind it than the ring takes."""

    seconds: float
    bytes: int
    groups: int
    lost: int


class Ring:
    """The newest pictures of one camera: at least `hold_s`, and at most a group more; never more than `max_bytes`.

    `begin` and `put` belong to the thread that reads the camera, all else to anybody. A group that is larger than
    `max_bytes` goes before it is complete: without its keyframe the rest of it is of no use.
    """

    def __init__(self, camera: str, *, hold_s: float, max_bytes: int) -> None:
        self._camera = camera
        self._hold_s = hold_s
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._groups: deque[Group] = deque()
        self._bytes = 0
        self._lost = 0
        self._next = self._order = 0
        self._segment: Segment | None = None
        self._open: Group | None = None
        self._refused = ""

    def begin(self, stream: VideoStream) -> None:
        """A stream was opened, or opened again: what comes now does not belong to what came before."""
        try:
            segment = Segment(self._take_order(), Parameters(stream))
        except Unrecordable as error:
            self.refuse(str(error))
            return
        self._refused = ""
        with self._lock:
            self._segment, self._open = segment, None

    def put(self, packet: av.Packet[VideoStream], at_s: float) -> None:
        """Keeps a copy of a packet's bytes, unless nothing can be done with it. Raises nothing."""
        segment = self._segment
        if segment is None or not packet.size:
            return
        data, key = bytes(packet), packet.is_keyframe
        if key:
            segment = self._same(segment, data)
        stamp = segment.timeline.next(packet.pts, packet.dts, at_s)
        with self._lock:
            self._keep(segment, Picture(data, stamp.dts, stamp.pts, key), at_s)

    def refuse(self, why: str) -> None:
        """Nothing of the camera can be recorded, until it is opened as something else."""
        if why != self._refused:
            log.warning("camera %s: no clips: %s", self._camera, why)
        self._refused = why
        with self._lock:
            self._segment = self._open = None

    def mark(self, at_s: float) -> Mark | None:
        """The newest picture that is not younger than `at_s`; the oldest where all are. None while there is nothing.

        By their order and not by time alone: a clock that was set while they came has put both sides of it in here.
        """
        with self._lock:
            for group in reversed(self._groups):
                if group.entries[0].at_s <= at_s:
                    found = next(entry for entry in reversed(group.entries) if entry.at_s <= at_s)
                    return Mark(group.segment, found.picture.dts, 0.0)
            if not self._groups:
                return None
            oldest = self._groups[0]
            return Mark(oldest.segment, oldest.entries[0].picture.dts, oldest.entries[0].at_s - at_s)

    def start(self, segment: Segment, dts: int) -> Entry | None:
        """The last keyframe of a segment that comes no later than `dts`, or its first. None when none is here."""
        with self._lock:
            own = [group.entries[0] for group in self._groups if group.segment is segment]
        return next((first for first in reversed(own) if first.picture.dts <= dts), own[0] if own else None)

    def read(self, segment: Segment, number: int) -> Reading:
        """What a segment has from entry `number` on."""
        with self._lock:
            own = [group for group in self._groups if group.segment is segment]
            entries = list(_from(own, number))
            newest = own[-1].entries[-1].number if own else -1
            over = self._segment is not segment
        gone = (entries[0].number > number) if entries else newest < number - 1 and not over
        return Reading(entries, gone, over)

    def after(self, segment: Segment) -> Segment | None:
        """The one that followed a segment, where pictures of it are here."""
        with self._lock:
            return next((group.segment for group in self._groups if group.segment.order > segment.order), None)

    def newest(self) -> Entry | None:
        with self._lock:
            return self._groups[-1].entries[-1] if self._groups else None

    @property
    def refused(self) -> str:
        """Why nothing of the camera can be recorded; empty where it can."""
        return self._refused

    def figures(self) -> Figures:
        with self._lock:
            seconds = sum(group.seconds for group in self._groups)
            return Figures(seconds, self._bytes, len(self._groups), self._lost)

    def _same(self, segment: Segment, keyframe: bytes) -> Segment:
        """The segment that a keyframe belongs to: another one where the camera has changed what it sends."""
        parameters = segment.parameters
        if not (parameters.sets_in_band or parameters.codec == "mjpeg"):
            return segment
        sets = parameter_sets(parameters.codec, keyframe)
        if not sets or sets == segment.sets:
            return segment
        if not segment.sets:
            segment.sets = sets
            return segment
        return Segment(self._take_order(), parameters, sets)

    def _take_order(self) -> int:
        self._order += 1
        return self._order

    def _keep(self, segment: Segment, picture: Picture, at_s: float) -> None:
        if segment is not self._segment:
            self._segment, self._open = segment, None
        if picture.key:
            self._open = Group(segment)
            self._groups.append(self._open)
            self._forget_segments()
        if self._open is None:
            self._lost += 1
            return
        self._bytes += self._open.add(Entry(self._next, picture, at_s))
        self._next += 1
        self._make_room()

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes or (len(self._groups) > 1 and self._spare()):
            self._let_go()

    def _forget_segments(self) -> None:
        newest = self._groups[-1].segment.order
        while self._groups[0].segment.order <= newest - MOST_SEGMENTS:
            self._let_go()

    def _let_go(self) -> None:
        gone = self._groups.popleft()
        self._bytes -= gone.bytes
        if gone is self._open:
            self._lost += len(gone.entries)
            self._open = None

    def _spare(self) -> bool:
        """Without the oldest group there is still enough."""
        newest = self._groups[-1].entries[-1].picture.dts
        following = self._groups[1]
        if following.segment is self._groups[-1].segment:
            return following.segment.seconds(newest - following.entries[0].picture.dts) >= self._hold_s
        return sum(group.seconds for group in list(self._groups)[1:]) >= self._hold_s


def _from(groups: Iterable[Group], number: int) -> Iterator[Entry]:
    for group in groups:
        if group.entries[-1].number >= number:
            yield from (entry for entry in group.entries if entry.number >= number)
