"""What a classifier says of whole pictures: a label that holds for a while is an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from contracts.camera_events import PictureEvent, Verdict
from edge_node.cameras.escalation.subjects import Subject
from edge_node.cameras.marks import Mark
from edge_node.cameras.sources.shot import Shot
from edge_node.pipelines import Looked

CONFIRM = 3
"""So many pictures in a row with another label end one and begin the next."""

Say = Callable[..., PictureEvent]


class Labels:
    """`say` is told the phase and what follows; `event_id` names a new event,
    `snapshot_of` where its first picture is."""

    def __init__(self, say: Say, event_id: Callable[[], str], *, snapshot_of: Callable[[str], str]) -> None:
        self._say = say
        self._event_id = event_id
        self._snapshot_of = snapshot_of
        self._event, self._label, self._score = "", "", 0.0
        self._name, self._confidence, self._verdict = "", cast("float | None", None), Verdict()
        self._began_s = self._last_s = 0.0
        self._next, self._times = "", 0

    def saw(self, shot: Shot, looked: Looked) -> None:
        probabilities = looked.reading.probabilities
        if probabilities is None:
            return
        best = int(np.argmax(probabilities[0]))
        names, score = looked.loaded.manifest.labels, float(probabilities[0][best])
        label = names[best] if best < len(names) else str(best)
        self._last_s = shot.at_s
        self._times = self._times + 1 if label == self._next else 1
        self._next = label
        if label == self._label:
            self._score, self._confidence = score, looked.reading.confidence
        elif self._times >= CONFIRM:
            self.end(shot.at_s)
            self._begin(label, score, shot.at_s, looked.reading.confidence)

    def rested(self, at_s: float) -> None:
        self._last_s = at_s

    def passed(self, at_s: float) -> None:
        pass

    def marks(self) -> Sequence[Mark]:
        return (Mark(f"{self._name} {self._score:.2f}", None),) if self._event else ()

    def subjects(self) -> Sequence[Subject]:
        if not self._event:
            return ()
        seen = self._label == self._next
        return (
            Subject(
                self._event,
                self._label,
                self._score,
                self._confidence,
                self._began_s,
                seen=seen,
                snapshot=self._snapshot_of(self._event),
            ),
        )

    def judged(self, event: str, verdict: Verdict, label: str = "") -> None:
        """What the cloud has named goes by its word, whatever the edge thinks of it later."""
        if event == self._event and (verdict.tier == "cloud" or self._verdict.tier == "edge"):
            self._verdict, self._name = verdict, label or self._name

    def end(self, at_s: float) -> None:
        if self._event:
            self._tell("end", at_s)
            self._event = self._label = ""

    def _begin(self, label: str, score: float, at_s: float, confidence: float | None) -> None:
        self._event, self._label, self._score, self._began_s = self._event_id(), label, score, at_s
        self._name, self._confidence, self._verdict = label, confidence, Verdict(confidence=confidence)
        self._tell("start", at_s)

    def _tell(self, phase: str, at_s: float) -> None:
        self._say(
            at_s,
            event=self._event,
            phase=phase,
            label=self._name,
            score=self._score,
            began_at_s=self._began_s,
            verdict=self._verdict,
            snapshot=self._snapshot_of(self._event),
        )
