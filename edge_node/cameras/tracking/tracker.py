"""From the detections of one picture after the other to tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from edge_node.cameras.tracking import motion
from edge_node.cameras.tracking.association import Pairs, Seen, Standing, paired
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.life import Life
from edge_node.cameras.tracking.track import Box, Changes, Shown, Track
from runtime.serving.models.found import Found

_ROUNDING_S = 1e-6
"""Sums of seconds are this exact; a gap of just `lost_after_s` is not too long for it."""


class Tracker:
    """The tracks of one camera. `labels` names the detector's label numbers; the first track gets `first_id`.

    Times are seconds on one clock that never goes back; the same calls give the same tracks, whatever the order of the
    detections within a picture.
    """

    def __init__(self, config: TrackerConfig, labels: Sequence[str] = (), first_id: int = 1) -> None:
        self._config = config
        self._labels = tuple(labels)
        self._next_id = first_id
        self._now_s: float | None = None
        self._run_s = 0.0  # stands while the scene does
        self._size: tuple[int, int] | None = None
        self._motions = motion.begun(np.empty((0, 4)))
        self._lives: list[Life] = []
        self._tracks: dict[int, Track] | None = None

    @property
    def tracks(self) -> tuple[Track, ...]:
        """All that are confirmed or lost, each where it is at the time of the last call."""
        return tuple(self._by_row().values())

    @property
    def next_id(self) -> int:
        """What the next track will be called: the `first_id` of a tracker that takes the place of this one."""
        return self._next_id

    def update(self, found: Found, at_s: float) -> Changes:
        """What was found in a picture captured at `at_s`. Boxes without an area are passed over.

        Raises ValueError when `at_s` is before that of the last call.
        """
        self._advance(at_s)
        ended = self._end()
        seen, known, first_new = _in_order(found), len(self._lives), self._next_id
        pairs = paired(self._standing(), seen, self._config)
        self._follow(pairs, seen, at_s)
        self._begin(pairs, seen, at_s)
        rows, lost = [*pairs.tracks.tolist(), *range(known, len(self._lives))], self._lose()
        tracks = self._by_row()
        return Changes(
            started=tuple(tracks[row] for row in rows if self._lives[row].id >= first_new),
            updated=tuple(tracks[row] for row in rows if 0 < self._lives[row].id < first_new),
            lost=tuple(tracks[row] for row in lost),
            ended=ended,
        )

    def tick(self, at_s: float, still: bool = False) -> Changes:
        """No picture was looked at until `at_s`: what is over by then ends.

        `still`: because nothing has moved. What stood there still stands there, and what was missing has missed
        nothing: all tracks stay as they are, and their clocks stand.

        Raises ValueError when `at_s` is before that of the last call.
        """
        if still:
            self._stand(at_s)
            return Changes()
        self._advance(at_s)
        ended, lost = self._end(), self._lose()
        tracks = self._by_row()
        return Changes(lost=tuple(tracks[row] for row in lost), ended=ended)

    def resized(self, width: int, height: int) -> None:
        """Pictures are of this size from now on: all tracks are scaled to it from the size that was told before."""
        if self._size is not None:
            self._tracks = None
            self._motions = motion.scaled(self._motions, width / self._size[0], height / self._size[1])
        self._size = (width, height)

    def _advance(self, at_s: float) -> None:
        dt_s = self._since(at_s)
        self._motions = motion.predicted(self._motions, dt_s)
        self._now_s, self._run_s = at_s, self._run_s + dt_s

    def _stand(self, at_s: float) -> None:
        self._since(at_s)
        for life in self._lives:
            if life.last_s == self._now_s:
                life.last_s = at_s
        self._now_s = at_s

    def _since(self, at_s: float) -> float:
        dt_s = 0.0 if self._now_s is None else at_s - self._now_s
        if not (math.isfinite(at_s) and dt_s >= 0):
            raise ValueError(
                f"A picture of {at_s} s came after one of {self._now_s} s. Give the tracker capture times of one clock "
                "that never goes back, and begin a new tracker (first_id=next_id) when the source starts anew."
            )
        self._tracks = None
        return dt_s

    def _end(self) -> tuple[Track, ...]:
        """Takes those away that are over."""
        over = [row for row, life in enumerate(self._lives) if self._is_over(life)]
        if not over:
            return ()
        for row in over:
            self._lives[row].on("over")
        ended = tuple(track for row, track in self._by_row().items() if self._lives[row].state == "ended")
        self._tracks = None
        going_on = [row for row, life in enumerate(self._lives) if life.state != "ended"]
        self._lives = [self._lives[row] for row in going_on]
        self._motions = motion.kept(self._motions, np.array(going_on, np.intp))
        return ended

    def _is_over(self, life: Life) -> bool:
        began_s, missed_s = self._run_s - life.began_run_s, self._run_s - life.found_run_s
        unproven = life.state == "tentative" and began_s > self._config.confirm_within_s + _ROUNDING_S
        return unproven or missed_s > self._config.lost_after_s + _ROUNDING_S

    def _standing(self) -> Standing:
        return Standing(
            motion.boxes_of(self._motions),
            motion.doubt_of(self._motions),
            np.array([life.label for life in self._lives], np.int64),
            [life.state for life in self._lives],
        )

    def _follow(self, pairs: Pairs, seen: Seen, at_s: float) -> None:
        self._motions = motion.corrected(self._motions, pairs.tracks, seen.boxes[pairs.detections])
        for row, detection in zip(pairs.tracks.tolist(), pairs.detections.tolist(), strict=True):
            self._note(self._lives[row], seen, detection, at_s)

    def _begin(self, pairs: Pairs, seen: Seen, at_s: float) -> None:
        free = seen.scores >= self._config.begin_score
        free[pairs.detections] = False
        self._motions = motion.joined(self._motions, motion.begun(seen.boxes[free]))
        for detection in np.flatnonzero(free).tolist():
            life = Life(at_s, self._run_s)
            self._lives.append(life)
            self._note(life, seen, detection, at_s)

    def _note(self, life: Life, seen: Seen, detection: int, at_s: float) -> None:
        life.note(int(seen.labels[detection]), float(seen.scores[detection]), at_s, self._run_s)
        if life.state == "tentative" and life.hits >= self._config.confirm_hits:
            life.on("proven")
            life.id, self._next_id = self._next_id, self._next_id + 1

    def _lose(self) -> list[int]:
        """The rows of those that have been missing for long enough since the last call."""
        missing_s = self._config.coast_s - _ROUNDING_S
        rows = []
        for row, life in enumerate(self._lives):
            if (
                life.state == "confirmed"
                and self._run_s > life.found_run_s
                and self._run_s - life.found_run_s >= missing_s
            ):
                life.on("missing")
                rows.append(row)
        return rows

    def _by_row(self) -> dict[int, Track]:
        """Those that were confirmed once."""
        if self._tracks is None:
            boxes = motion.boxes_of(self._motions).tolist()
            known = ((row, life) for row, life in enumerate(self._lives) if life.id)
            self._tracks = {row: self._track(life, boxes[row]) for row, life in known}
        return self._tracks

    def _track(self, life: Life, box: list[float]) -> Track:
        return Track(
            id=life.id,
            label=self._labels[life.label] if life.label < len(self._labels) else str(life.label),
            score=life.score,
            box=cast(Box, tuple(box)),
            first_s=life.first_s,
            last_s=life.last_s,
            state=cast(Shown, life.state),
            hits=life.hits,
            broken=life.broken,
            best_score=life.best_score,
        )


def _in_order(found: Found) -> Seen:
    """The detections that have an area, in an order that does not depend on the one they came in."""
    boxes, scores, labels = (np.asarray(column) for column in found)
    boxes = boxes.astype(np.float64)
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(scores)
    order = np.lexsort((labels, *boxes.T, -scores))
    order = order[good[order]]
    return Seen(boxes[order], scores[order].astype(np.float64), labels[order].astype(np.int64))
