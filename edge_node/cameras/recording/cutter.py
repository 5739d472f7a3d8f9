"""The clips of one camera: which of them an event belongs to, and what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from edge_node.cameras.recording.config import Limits
from edge_node.cameras.recording.container import Unrecordable
from edge_node.cameras.recording.filming import Filming, Span
from edge_node.cameras.recording.metrics import DropReason, RecordingCounts
from edge_node.cameras.recording.ring import Entry, Ring, Segment
from edge_node.cameras.recording.shelf import Shelf, is_full


class Wanted(NamedTuple):
    """A clip from `pre_s` before `at_s`, unix time, to `post_s` after."""

    event: str
    at_s: float
    pre_s: float
    post_s: float


class Rest(NamedTuple):
    """What a stream that ended owes its events: until `deadline_s`, by a clock that nobody sets."""

    segment: Segment
    events: tuple[str, ...]
    deadline_s: float


class Cutter:
    """For one thread. What the disk refuses is counted and told to `trouble`, with "" when it is over; nothing raises.

    Events whose times touch share a clip. One that would be longer than the camera's limit goes on in another, and so
    does one whose stream broke off, with what comes after; no clip holds pictures of two streams.
    """

    def __init__(
        self,
        camera: str,
        ring: Ring,
        limits: Limits,
        shelf: Shelf,
        counts: RecordingCounts,
        trouble: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.camera = camera
        self.ring = ring
        self.limits = limits
        self._shelf = shelf
        self._counts = counts
        self._trouble = trouble
        self._clock = clock
        self._filmings: list[Filming] = []
        self._rests: list[Rest] = []

    @property
    def idle(self) -> bool:
        return not self._filmings and not self._rests

    def is_filming(self, event: str) -> bool:
        """For any thread."""
        owed = (event in rest.events for rest in tuple(self._rests))
        return any(event in filming.events for filming in tuple(self._filmings)) or any(owed)

    def take(self, wanted: Wanted) -> None:
        mark = self.ring.mark(wanted.at_s)
        if mark is None or mark.early_s > wanted.post_s:
            self._counts.drop("codec" if self.ring.refused else "gone")
            return
        before, after = mark.segment.ticks(wanted.pre_s), mark.segment.ticks(wanted.post_s - mark.early_s)
        span = Span(mark.segment, mark.dts - before, mark.dts, mark.dts + max(1, after))
        self._film(span, {wanted.event: span.until})

    def go_on(self) -> None:
        for filming in tuple(self._filmings):
            self._attempt(filming, partial(self._advance, filming))
        for rest in tuple(self._rests):
            self._follow(rest)

    def stop(self, why: str) -> None:
        """Ends all clips where they are."""
        self._rests.clear()
        for filming in tuple(self._filmings):
            self._attempt(filming, partial(self._stop, filming, why))

    def drop_all(self, reason: DropReason) -> None:
        for filming in tuple(self._filmings):
            self._drop(filming, reason)

    def _film(self, span: Span, events: Mapping[str, int]) -> None:
        """Adds events to the clip that they belong to, or begins one."""
        first = self.ring.start(span.segment, span.begin)
        if first is None or first.picture.dts >= span.until:
            self._counts.drop("gone", len(events))
            return
        span = span._replace(begin=first.picture.dts)
        filming = next((each for each in self._filmings if each.touches(span)), None)
        if filming is None:
            filming = self._begun(first, span, len(events))
        if filming is not None:
            for event, until in events.items():
                filming.extend(event, until)
            filming.wait_until(self._clock())

    def _begun(self, first: Entry, span: Span, events: int) -> Filming | None:
        part = None
        try:
            part = self._shelf.begin(self.camera)
            longest, linger = (span.segment.ticks(each) for each in (self.limits.longest_s, self.limits.pre_s))
            filming = Filming(self.ring, part, first, span, longest=longest, linger=linger)
        except (OSError, Unrecordable) as error:
            if part is not None:
                self._shelf.abandon(part)
            self._count(error, events)
            return None
        self._filmings.append(filming)
        return filming

    def _advance(self, filming: Filming) -> None:
        """Writes what has come. A clip that is complete is put in its place, and what goes on elsewhere is begun."""
        if not filming.go_on(self._clock()):
            return
        self._place(filming)
        if filming.over:
            deadline_s = self._clock() + filming.missing_s
            self._rests.append(Rest(filming.segment, tuple(filming.events), deadline_s))
        elif filming.full:
            late = {event: until for event, until in filming.events.items() if until > filming.latest}
            self._film(Span(filming.segment, filming.latest, filming.latest, filming.until, follows=True), late)

    def _stop(self, filming: Filming, why: str) -> None:
        filming.go_on(self._clock())
        self._place(filming, why)

    def _place(self, filming: Filming, why: str = "") -> None:
        if not filming.pictures:
            self._drop(filming, "gone")
            return
        clip = filming.complete(self.camera, why)
        self._shelf.place(filming.part, clip)
        self._filmings.remove(filming)
        self._counts.wrote(clip.bytes, cut_short=bool(clip.cut_short))
        self._trouble("")

    def _follow(self, rest: Rest) -> None:
        left_s = rest.deadline_s - self._clock()
        following = self.ring.after(rest.segment)
        first = self.ring.start(following, 0) if following is not None else None
        if left_s <= 0 or first is not None:
            self._rests.remove(rest)
        if left_s > 0 and following is not None and first is not None:
            begin = first.picture.dts
            until = begin + max(1, following.ticks(left_s))
            self._film(Span(following, begin, begin, until), dict.fromkeys(rest.events, until))

    def _attempt(self, filming: Filming, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, Unrecordable) as error:
            self._drop(filming, None)
            self._count(error, len(filming.events))

    def _drop(self, filming: Filming, reason: DropReason | None) -> None:
        self._filmings.remove(filming)
        filming.abandon()
        self._shelf.abandon(filming.part)
        if reason is not None:
            self._counts.drop(reason, len(filming.events))

    def _count(self, error: OSError | Unrecordable, events: int) -> None:
        if isinstance(error, Unrecordable):
            self._counts.drop("codec", events)
            self._trouble(f"camera {self.camera}: {error}")
            return
        self._counts.drop("no-room" if is_full(error) else "disk", events)
        self._trouble(str(error))
