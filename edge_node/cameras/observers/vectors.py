"""What an embedding model makes of whole pictures: an event holds while they are like the one it began with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from contracts.camera_events import PictureEvent, Verdict
from edge_node.cameras.escalation.subjects import Subject
from edge_node.cameras.marks import Mark
from edge_node.cameras.sources.shot import Shot
from edge_node.pipelines import Looked

Vector = npt.NDArray[np.float64]
Say = Callable[..., PictureEvent]


class EmbeddingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`change`: a picture begins a new event whose cosine distance (0..2) to the first one of this event exceeds it."""

    change: Annotated[float, Meta(gt=0, le=2)] = 0.2


class Vectors:
    """`say` is told the phase and what follows; `event_id` names a new event, `snapshot_of` where its
    first picture is. No event begins sooner than `update_every_s` after the last one."""

    def __init__(
        self,
        config: EmbeddingConfig,
        say: Say,
        event_id: Callable[[], str],
        *,
        snapshot_of: Callable[[str], str],
        update_every_s: float,
    ) -> None:
        self._config = config
        self._say = say
        self._event_id = event_id
        self._snapshot_of = snapshot_of
        self._update_every_s = update_every_s
        self._event = ""
        self._first: Vector = np.empty(0)
        self._distance = self._began_s = 0.0

    def saw(self, shot: Shot, looked: Looked) -> None:
        output = looked.outputs[looked.loaded.manifest.postprocess.output]
        vector = np.asarray(output[0], np.float64).ravel()
        direction = _direction(vector)
        if direction is None:
            return
        if self._event and len(direction) == len(self._first):
            self._distance = max(0.0, 1.0 - float(direction @ self._first))
            # A clock that was set back must not hold the next event up.
            is_due = abs(shot.at_s - self._began_s) >= self._update_every_s
            if not is_due or self._distance <= self._config.change:
                return
        self.end(shot.at_s)
        self._begin(vector, direction, shot.at_s)

    def rested(self, at_s: float) -> None:
        pass

    def passed(self, at_s: float) -> None:
        pass

    def marks(self) -> Sequence[Mark]:
        return (Mark(f"distance {self._distance:.2f}", None),) if self._event else ()

    def subjects(self) -> Sequence[Subject]:
        """None: what a vector means is for its reader to say."""
        return ()

    def judged(self, event: str, verdict: Verdict, label: str = "") -> None:
        pass

    def end(self, at_s: float) -> None:
        if self._event:
            self._say(at_s, event=self._event, phase="end", began_at_s=self._began_s)
            self._event = ""

    def _begin(self, vector: Vector, direction: Vector, at_s: float) -> None:
        self._event, self._first, self._distance, self._began_s = self._event_id(), direction, 0.0, at_s
        told = tuple(vector.tolist())
        shown = self._snapshot_of(self._event)
        self._say(at_s, event=self._event, phase="start", began_at_s=at_s, vector=told, snapshot=shown)


def _direction(vector: Vector) -> Vector | None:
    """Of length 1; None for a vector that has no direction."""
    length = float(np.linalg.norm(vector))
    return vector / length if 0.0 < length < np.inf else None
