"""Which detection belongs to which track: ByteTrack's stages (Zhang et al. 2022, arXiv:2110.06864).

Sure detections are looked for first, for tracks that are known; weak ones then keep those alive that would miss; what
sure detections are left go to tracks that still have to prove themselves. Each stage is one assignment of the largest
sum of overlaps. The overlap is Hybrid-SORT's (Yang et al. 2023, arXiv:2308.00783): intersection over union, times the
same of the heights alone, which keeps those apart who walk before one another. Both boxes are grown by how unsure the
track's place is (after C-BIoU, Yang et al. 2022, arXiv:2211.14317, which grows by a fixed share), so that what moves by
its own width between two pictures is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.life import State
from edge_node.cameras.tracking.motion import Floats, Rows

Labels = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

_WEAK_MIN_OVERLAP = 0.5
_MOST_GROWTH: dict[State, float] = {"tentative": 1.5, "confirmed": 0.5, "lost": 0.25}
"""Of the shorter side of a track's box: by more no box grows, however unsure its place is. Nobody knows yet how fast a
tentative track goes; one that was missing for long must not take who else comes by."""


class Standing(NamedTuple):
    """The tracks where they must be by now, a row each: `boxes` [n, 4], `doubts` [n] in pixels, `labels` [n]."""

    boxes: Floats
    doubts: Floats
    labels: Labels
    states: Sequence[State]


class Seen(NamedTuple):
    """The detections of one picture, a row each: `boxes` [m, 4], `scores` [m], `labels` [m]."""

    boxes: Floats
    scores: Floats
    labels: Labels


class Pairs(NamedTuple):
    """Row `tracks[i]` was found as detection `detections[i]`; no row and no detection is named twice."""

    tracks: Rows
    detections: Rows


class _Stage(NamedTuple):
    states: frozenset[State]
    sure: bool
    min_overlap: float


def paired(standing: Standing, seen: Seen, config: TrackerConfig) -> Pairs:
    """At most one detection for each track; pairs are in the order of the tracks."""
    overlaps = overlaps_of(standing.boxes, _growth(standing), seen.boxes)
    if not config.class_agnostic:
        overlaps *= standing.labels[:, None] == seen.labels[None, :]
    sure = seen.scores >= config.high_score
    weak = (seen.scores >= config.low_score) & ~sure
    free_tracks, free_detections = np.ones(len(standing.boxes), np.bool_), np.ones(len(seen.boxes), np.bool_)
    found = np.full(len(standing.boxes), -1, np.intp)
    for stage in _stages(config):
        of_stage = np.array([state in stage.states for state in standing.states], np.bool_)
        rows = np.flatnonzero(of_stage & free_tracks)
        columns = np.flatnonzero((sure if stage.sure else weak) & free_detections)
        if not (rows.size and columns.size):
            continue
        mine, its = assigned(overlaps[np.ix_(rows, columns)], stage.min_overlap)
        free_tracks[rows[mine]], free_detections[columns[its]] = False, False
        found[rows[mine]] = columns[its]
    tracks = np.flatnonzero(found >= 0)
    return Pairs(tracks, found[tracks])


def assigned(overlaps: Floats, min_overlap: float) -> Pairs:
    """The pairs of rows and columns with the largest sum of overlaps, none of which is below `min_overlap`."""
    if not overlaps.size:
        return Pairs(np.empty(0, np.intp), np.empty(0, np.intp))
    from scipy.optimize import linear_sum_assignment

    near = overlaps >= min_overlap
    rows, columns = linear_sum_assignment(np.where(near, overlaps, 0.0), maximize=True)
    good = near[rows, columns]
    return Pairs(rows[good], columns[good])


def overlaps_of(boxes: Floats, by: Floats, others: Floats) -> Floats:
    """[n, m]: of `boxes` [n, 4] with `others` [m, 4], all sides moved out by `by` [n], 0..1."""
    out = 2 * by[:, None]
    width, other_width, common_width = _along(0, boxes, others, out)
    height, other_height, common_height = _along(1, boxes, others, out)
    common = common_width * common_height
    iou = common / (width * height + other_width * other_height - common)
    return np.asarray(iou * common_height / (height + other_height - common_height))


def _along(axis: int, boxes: Floats, others: Floats, out: Floats) -> tuple[Floats, Floats, Floats]:
    """Lengths along an axis, grown by `out`: of `boxes` [n, 1] and `others` [n, m], and of what they share [n, m]."""
    near, far = boxes[:, axis, None], boxes[:, axis + 2, None]
    other_near, other_far = others[None, :, axis], others[None, :, axis + 2]
    common = np.minimum(far, other_far) - np.maximum(near, other_near) + out
    return far - near + out, other_far - other_near + out, np.clip(common, 0, None)


def _growth(standing: Standing) -> Floats:
    most = np.array([_MOST_GROWTH[state] for state in standing.states], np.float64)
    shorter = (standing.boxes[:, 2:] - standing.boxes[:, :2]).min(axis=1, initial=np.inf)
    return np.asarray(np.minimum(standing.doubts, most * shorter))


def _stages(config: TrackerConfig) -> tuple[_Stage, ...]:
    return (
        _Stage(frozenset({"confirmed", "lost"}), sure=True, min_overlap=config.min_overlap),
        _Stage(frozenset({"confirmed"}), sure=False, min_overlap=max(config.min_overlap, _WEAK_MIN_OVERLAP)),
        _Stage(frozenset({"tentative"}), sure=True, min_overlap=config.min_overlap),
    )
