"""How good tracks are, against the truth.

MOTA of CLEAR MOT (Bernardin and Stiefelhagen 2008, doi:10.1155/2008/246309) and IDF1 (Ristani et al. 2016,
arXiv:1609.01775), at an IoU of 0.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]
Named = Mapping[int, Box]
"""Boxes by the id of an object or of a track."""

_SAME_IOU = 0.5


class Figures(NamedTuple):
    """`switches`: how often an object went on under another track."""

    mota: float
    idf1: float
    switches: int
    missed: int
    false: int
    objects: int
    tracks: int


def figures(pictures: Iterable[tuple[Named, Named]]) -> Figures:
    """Of the objects and the tracks in each picture."""
    counts: Counter[str] = Counter()
    last: dict[int, int] = {}
    together: Counter[tuple[int, int]] = Counter()
    objects: Counter[int] = Counter()
    tracks: Counter[int] = Counter()
    for truth, told in pictures:
        objects.update(list(truth))
        tracks.update(list(told))
        together.update(_overlapping(truth, told))
        pairs = _matched(truth, told, last)
        counts["missed"] += len(truth) - len(pairs)
        counts["false"] += len(told) - len(pairs)
        counts["switches"] += sum(1 for name, track in pairs.items() if last.get(name, track) != track)
        last.update(pairs)
    wrong, both = counts["missed"] + counts["false"] + counts["switches"], objects.total() + tracks.total()
    return Figures(
        mota=1 - wrong / objects.total(),
        idf1=2 * _best(together, objects, tracks) / both,
        switches=counts["switches"],
        missed=counts["missed"],
        false=counts["false"],
        objects=len(objects),
        tracks=len(tracks),
    )


def _overlapping(truth: Named, told: Named) -> list[tuple[int, int]]:
    same = _ious(truth, told) >= _SAME_IOU
    names, ids = list(truth), list(told)
    return [(names[row], ids[column]) for row, column in zip(*np.nonzero(same), strict=True)]


def _matched(truth: Named, told: Named, last: Mapping[int, int]) -> dict[int, int]:
    """Which track each object is; who was it the last time is it again where that still holds."""
    ious = _ious(truth, told)
    names, ids = list(truth), list(told)
    worth = np.where(ious >= _SAME_IOU, ious, 0.0)
    for row, name in enumerate(names):
        if last.get(name) in told:
            worth[row, ids.index(last[name])] *= 100
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return {names[row]: ids[column] for row, column in zip(rows, columns, strict=True) if worth[row, column] > 0}


def _best(together: Counter[tuple[int, int]], objects: Counter[int], tracks: Counter[int]) -> int:
    """In how many boxes objects and tracks agree, each object being at most one track throughout."""
    names, ids = list(objects), list(tracks)
    table = np.array([[together[name, track] for track in ids] for name in names]).reshape(len(names), len(ids))
    return int(table[linear_sum_assignment(table, maximize=True)].sum())


def _ious(truth: Named, told: Named) -> npt.NDArray[np.float64]:
    a, b = np.array(list(truth.values())).reshape(-1, 1, 4), np.array(list(told.values())).reshape(1, -1, 4)
    common = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (a, b)]
    return np.asarray(common / (areas[0] + areas[1] - common))
