"""What a detector finds becomes tracks, and what tracks do becomes events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast

import msgspec

from contracts.camera_events import (
    CameraMessage,
    CountsMessage,
    CrossingEvent,
    Phase,
    RuleEvent,
    TrackEvent,
    Verdict,
)
from edge_node.cameras.escalation.subjects import Subject
from edge_node.cameras.marks import Mark
from edge_node.cameras.scene.config import SceneConfig
from edge_node.cameras.scene.events import Crossed, Entered, Left, RuleBegan, RuleEnded, SceneEvent
from edge_node.cameras.scene.masks import without_hidden
from edge_node.cameras.scene.scene import Scene
from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.track import Box, Changes, Track
from edge_node.cameras.tracking.tracker import Tracker
from edge_node.pipelines import Looked
from runtime.serving.models.found import Found
from runtime.serving.pictures.picture import Size

M = TypeVar("M", bound=CameraMessage)

JUMP_S = 2.0
"""A clock that goes back by less stands still instead; by more, all begins anew."""


class Say(Protocol):
    """Says a message of one camera."""

    def __call__(self, kind: type[M], at_s: float, **told: Any) -> M: ...


Find = Callable[[Looked, Size], Found]
"""What the model has found, in the pixels of a picture of that size."""


class _Told(msgspec.Struct):
    """What was said of one track. `label` is what the cloud calls it, "" where it has said nothing."""

    event: str
    began_at_s: float
    last_s: float
    zones: tuple[str, ...] = ()
    verdict: Verdict = Verdict()
    label: str = ""


class Tracks:
    """`sure` is the confidence that a score stands for; `event_id` names the event of a new track,
    `snapshot_of` where its first picture is; `update_every_s` is
    between two words about one that goes on."""

    def __init__(
        self,
        tracker: TrackerConfig,
        scene: SceneConfig,
        labels: Sequence[str],
        *,
        find: Find,
        sure: Callable[[float], float | None],
        say: Say,
        event_id: Callable[[], str],
        snapshot_of: Callable[[Literal["track", "rule"], str], str],
        update_every_s: float,
    ) -> None:
        self._config = tracker
        self._scene_config = scene
        self._labels = labels
        self._find = find
        self._sure = sure
        self._say = say
        self._event_id = event_id
        self._snapshot_of = snapshot_of
        self._update_every_s = update_every_s
        self._tracker, self._scene = Tracker(tracker, labels), Scene(scene)
        self._told: dict[int, _Told] = {}
        self._rules: dict[tuple[str, int], str] = {}
        self._size = Size(0, 0)
        self._last_s = 0.0

    def saw(self, shot: Shot, looked: Looked) -> None:
        self._resize(shot.size, shot.at_s)
        found = self._find(looked, shot.size)
        if self._scene_config.masks:
            found = without_hidden(found, self._scene_config.masks, *shot.size)
        at_s = self._minded(shot.at_s)
        self._follow(self._tracker.update(found, at_s), at_s)

    def rested(self, at_s: float) -> None:
        at_s = self._minded(at_s)
        self._follow(self._tracker.tick(at_s, still=True), at_s)

    def passed(self, at_s: float) -> None:
        at_s = self._minded(at_s)
        self._follow(self._tracker.tick(at_s), at_s)

    def marks(self) -> Sequence[Mark]:
        tracks = (track for track in self._tracker.tracks if track.state == "confirmed")
        return tuple(Mark(f"{self._name(track)} {track.id}", track.box, track.id) for track in tracks)

    def subjects(self) -> Sequence[Subject]:
        return tuple(self._subject(track) for track in self._tracker.tracks if track.id in self._told)

    def judged(self, event: str, verdict: Verdict, label: str = "") -> None:
        """What the cloud has named goes by its word, whatever the edge thinks of it later."""
        for told in self._told.values():
            if told.event == event and (verdict.tier == "cloud" or not told.label):
                told.verdict, told.label = verdict, label or told.label

    def end(self, at_s: float) -> None:
        """Of all that goes on: zones are empty then, and no rule holds."""
        happened = self._scene.update((), *self._size, at_s) if self._size.width else ()
        self._note_zones(happened)
        for event in happened:
            self._tell_scene(event, at_s)
        for track in self._tracker.tracks:
            self._tell(track, "end", at_s)
            self._told.pop(track.id, None)
        if happened:
            self._tell_counts(at_s)

    def _minded(self, at_s: float) -> float:
        """Never before the last time; a clock that was set back ends what is going on."""
        if at_s < self._last_s - JUMP_S:
            self.end(self._last_s)
            self._tracker = Tracker(self._config, self._labels, first_id=self._tracker.next_id)
            self._tracker.resized(*self._size)
            self._scene.set_back()
            self._last_s = at_s
        self._last_s = max(self._last_s, at_s)
        return self._last_s

    def _resize(self, size: Size, at_s: float) -> None:
        """With the first picture it is told that nobody is there yet: what stands is of an earlier life."""
        if size != self._size:
            is_first, self._size = not self._size.width, size
            self._tracker.resized(*size)
            if is_first and (self._scene_config.zones or self._scene_config.lines):
                self._tell_counts(at_s)

    def _follow(self, changes: Changes, at_s: float) -> None:
        for track in changes.started:
            self._told[track.id] = _Told(self._event_id(), track.first_s, at_s)
        happened = self._scene.update(self._tracker.tracks, *self._size, at_s) if self._size.width else ()
        moved = self._note_zones(happened)
        for track in changes.started:
            self._tell(track, "start", at_s)
        for track in changes.updated:
            is_due = at_s - self._told[track.id].last_s >= self._update_every_s
            if is_due or track.id in moved:
                self._tell(track, "update", at_s)
        for event in happened:
            self._tell_scene(event, at_s)
        for track in changes.ended:
            self._tell(track, "end", at_s)
            self._told.pop(track.id, None)
        if any(isinstance(event, Entered | Left | Crossed) for event in happened):
            self._tell_counts(at_s)

    def _note_zones(self, happened: Sequence[SceneEvent]) -> set[int]:
        """The tracks that have come into a zone, or gone out of one."""
        moved: set[int] = set()
        for event in happened:
            told = self._told.get(event.track) if isinstance(event, Entered | Left) else None
            if told is None:
                continue
            assert isinstance(event, Entered | Left)
            others = tuple(zone for zone in told.zones if zone != event.zone)
            told.zones = (*others, event.zone) if isinstance(event, Entered) else others
            moved.add(event.track)
        return moved

    def _tell(self, track: Track, phase: Phase, at_s: float) -> None:
        told = self._told.get(track.id)
        if told is None:
            return
        told.last_s = at_s
        self._say(
            TrackEvent,
            at_s,
            event=told.event,
            phase=phase,
            track=track.id,
            label=self._name(track),
            # The last detections of who walks away are weak: they say nothing of the whole track.
            score=round(track.best_score if phase == "end" else track.score, 4),
            box=self._clipped(track.box),
            size=(self._size.width, self._size.height),
            began_at_s=told.began_at_s,
            zones=told.zones,
            verdict=told.verdict,
            snapshot=self._snapshot_of("track", told.event),
        )

    def _tell_scene(self, event: SceneEvent, at_s: float) -> None:
        if isinstance(event, Crossed):
            told = self._told.get(event.track)
            self._say(
                CrossingEvent,
                at_s,
                event=told.event if told is not None else "",
                line=event.line,
                direction=event.direction,
                track=event.track,
                label=(told.label if told is not None else "") or event.label,
            )
        elif isinstance(event, RuleBegan):
            zone = next(rule.zone for rule in self._scene_config.rules if rule.name == event.rule)
            name = self._rules[event.rule, event.episode] = self._event_id()
            tracks = tuple(self._told[track].event for track in event.tracks if track in self._told)
            shown = self._snapshot_of("rule", name)
            self._say(
                RuleEvent, at_s, event=name, phase="start", rule=event.rule, zone=zone, tracks=tracks, snapshot=shown
            )
        elif isinstance(event, RuleEnded):
            name = self._rules.pop((event.rule, event.episode), "")
            self._say(RuleEvent, at_s, event=name, phase="end", rule=event.rule)

    def _tell_counts(self, at_s: float) -> None:
        counts = self._scene.counts
        lines: dict[str, dict[Literal["in", "out"], int]] = {
            line.line: {"in": sum(line.inwards.values()), "out": sum(line.outwards.values())} for line in counts.lines()
        }
        self._say(CountsMessage, at_s, zones={zone.zone: zone.now for zone in counts.zones()}, lines=lines)

    def _subject(self, track: Track) -> Subject:
        told = self._told[track.id]
        return Subject(
            told.event,
            track.label,
            track.score,
            self._sure(track.score),
            told.began_at_s,
            self._clipped(track.box),
            seen=track.last_s == self._last_s,
            broken=track.broken,
            track=track.id,
            zones=told.zones,
            snapshot=self._snapshot_of("track", told.event),
        )

    def _name(self, track: Track) -> str:
        told = self._told.get(track.id)
        return (told.label if told is not None else "") or track.label

    def _clipped(self, box: Box) -> Box:
        """Within the picture, to tenths of a pixel."""
        width, height = self._size
        most = (width, height, width, height)
        return cast(Box, tuple(round(min(max(edge, 0.0), float(end)), 1) for edge, end in zip(box, most, strict=True)))
