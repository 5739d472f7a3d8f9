"""One clip while it is written: from a keyframe before the event to the end that is wanted of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edge_node.cameras.recording.clip import MOST_EVENTS, Clip
from edge_node.cameras.recording.container import Picture
from edge_node.cameras.recording.ring import Entry, Reading, Ring, Segment
from edge_node.cameras.recording.shelf import Part

GRACE_S = 5.0
"""For how much longer than it should last a clip waits for pictures of a camera that has fallen silent."""


class Span(NamedTuple):
    """What is wanted of a segment: `begin` and `until` in its ticks, `until` exclusive; `at`: when the event was.

    `follows`: it goes on from a clip that has become as long as one may.
    """

    segment: Segment
    begin: int
    at: int
    until: int
    follows: bool = False


class Filming:
    """`longest`: the most ticks that it may become; `linger`: for how many it waits for another event, once it is long
    enough. Its times are those of the ring, rebased to its first picture.

    Pictures that are shown before the first keyframe, but come after it, need some from before it: they are left out.
    """

    def __init__(self, ring: Ring, part: Part, first: Entry, span: Span, *, longest: int, linger: int) -> None:
        segment = span.segment
        self.part = part
        self.segment = segment
        self.start = first.picture.dts
        self.latest = self.start + longest
        self.until = span.until
        self.events: dict[str, int] = {}
        self.over = False
        self._linger = linger
        self._follows = span.follows
        self._deadline_s = 0.0
        self._reached = False
        self._ring = ring
        self._first = first
        self._next = first.number
        self._leading = True
        self._last = self.start
        self._step = 0
        self.pictures = 0
        self._cut_short = ""
        self._film = segment.parameters.begin(part, segment.sets, first.picture.data)

    @property
    def end(self) -> int:
        return min(self.until, self.latest)

    @property
    def full(self) -> bool:
        """As long as a clip may be, and more is wanted."""
        return self._reached and self.until > self.latest

    @property
    def missing_s(self) -> float:
        """What is wanted and was not written, in seconds."""
        return self.segment.seconds(self.until - self._last - self._step)

    def touches(self, span: Span) -> bool:
        """A span that goes into this clip rather than into one of its own.

        It begins in it, or in the clip before it that this one goes on from.
        """
        if span.segment is not self.segment or span.begin > self.end or span.at > self.latest:
            return False
        return self.start <= span.begin or (self._follows and self.start <= span.at)

    def extend(self, event: str, until: int) -> None:
        if until > self.until:
            self.until, self._reached = until, False
        if event in self.events or len(self.events) < MOST_EVENTS:
            self.events[event] = max(until, self.events.get(event, until))

    def go_on(self, now_s: float) -> bool:
        """Writes what has come; True when the clip is as long as it will be. Raises OSError and Unrecordable."""
        reading = self._ring.read(self.segment, self._next)
        if not reading.gone:
            self._write(reading.entries, now_s)
        self._cut_short = "" if self._reached else self._why_short(reading, now_s)
        self.over = reading.over and not self._reached
        return bool(self._cut_short) or (self._reached and self._settled(reading, now_s))

    def wait_until(self, now_s: float) -> None:
        self._deadline_s = now_s + max(0.0, self.segment.seconds(self.end + self._linger - self._last)) + GRACE_S

    def _write(self, entries: list[Entry], now_s: float) -> None:
        before = self._next
        self._film.add(self._rebased(self._due(entries)))
        if self._next != before:
            self.wait_until(now_s)
        self._reached = self._reached or (bool(entries) and entries[-1].picture.dts >= self.end)

    def _why_short(self, reading: Reading, now_s: float) -> str:
        if reading.gone:
            return "the disk was slower than the camera"
        if reading.over:
            return "the stream ended"
        return "the camera fell silent" if now_s >= self._deadline_s else ""

    def _settled(self, reading: Reading, now_s: float) -> bool:
        """No event can come that touches this clip: it would be about pictures that are older than it may look back."""
        if reading.gone or reading.over or self.until >= self.latest or now_s >= self._deadline_s:
            return True
        return bool(reading.entries) and reading.entries[-1].picture.dts >= self.until + self._linger

    def complete(self, camera: str, stopped: str = "") -> Clip:
        """Writes its end, and says what it has become; `stopped`: why it does not go on. Raises as `go_on`."""
        self._film.close()
        seconds = self.segment.seconds(self._last - self.start + self._step)
        return Clip(
            camera=camera,
            events=tuple(self.events),
            from_s=self._first.at_s,
            to_s=self._first.at_s + seconds,
            seconds=seconds,
            codec=self.segment.parameters.codec,
            width=self._film.width,
            height=self._film.height,
            pictures=self.pictures,
            bytes=self.part.bytes,
            sha256=self.part.sha256,
            cut_short=self._cut_short or ("" if self._reached else stopped),
        )

    def abandon(self) -> None:
        """Lets go of FFmpeg's buffers; what it still writes goes nowhere."""
        self.part.forget()
        self._film.abandon()

    def _due(self, entries: list[Entry]) -> Iterator[Entry]:
        for entry in entries:
            picture = entry.picture
            if picture.dts >= self.end:
                return
            self._next = entry.number + 1
            self._leading &= not picture.key or entry.number == self._first.number
            if not self._leading or picture.pts >= self._first.picture.pts:
                yield entry

    def _rebased(self, entries: Iterator[Entry]) -> Iterator[Picture]:
        begin = self._first.picture.pts
        for entry in entries:
            picture = entry.picture
            if self.pictures:
                self._step = picture.dts - self._last
            self._last = picture.dts
            self.pictures += 1
            yield picture._replace(dts=picture.dts - begin, pts=picture.pts - begin)
