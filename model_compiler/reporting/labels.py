"""Where the names of dots go, so that they cover neither each other nor a dot."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

Side = Literal["left", "center", "right"]


class Box(msgspec.Struct, frozen=True):
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


class Label(msgspec.Struct, frozen=True):
    """A dot at (`x`, `y`) and the size of its name. `above`, `below`: how far its whisker reaches. A name that is not
    `needed` is left out where it would cover something."""

    x: float
    y: float
    width: float
    height: float
    above: float = 0.0
    below: float = 0.0
    needed: bool = True


class Placed(msgspec.Struct, frozen=True):
    """Where a name is anchored: its middle's height, and which side of it `x` is."""

    x: float
    y: float
    side: Side
    box: Box


def place(labels: Sequence[Label], within: Box, *, avoid: Sequence[Box] = (), away: float = 6.0) -> list[Placed | None]:
    """A place for each label, in their order: the first around its dot and at the ends of its whisker that covers
    nothing, or the one that covers least of dots, other names and what else there is to `avoid`. None for a name that
    is left out. All lengths in one unit, y upwards."""
    dots = [Box(each.x - away / 2, each.y - away / 2, each.x + away / 2, each.y + away / 2) for each in labels]
    placed: list[Placed | None] = []
    for label in labels:
        words = [each.box for each in placed if each is not None]
        worst = functools.partial(_covers, hidden=[*dots, *words], crossed=avoid, within=within)
        best = min(_around(label, away), key=worst)
        placed.append(best if label.needed or worst(best) == 0.0 else None)
    return placed


def _covers(placed: Placed, hidden: Sequence[Box], crossed: Sequence[Box], within: Box) -> float:
    """The area over lines that are `crossed`; tenfold that over what would be `hidden`, and outside of the picture."""
    box = placed.box
    outside = (box.right - box.left) * (box.top - box.bottom) - box.overlap(within)
    lost = sum(box.overlap(other) for other in hidden) + max(0.0, outside)
    return sum(box.overlap(other) for other in crossed) + 10.0 * lost


def _around(label: Label, away: float) -> Iterator[Placed]:
    step = away / 2 + label.height / 2
    places: tuple[tuple[float, float, Side], ...] = (
        (away, 0.0, "left"),
        (-away, 0.0, "right"),
        (0.0, step, "center"),
        (0.0, -step, "center"),
        (away / 2, step, "left"),
        (away / 2, -step, "left"),
        (-away / 2, step, "right"),
        (-away / 2, -step, "right"),
    )
    over, under = label.above + step, -label.below - step
    ends: tuple[tuple[float, float, Side], ...] = (
        (0.0, over, "center"),
        (0.0, under, "center"),
        (0.0, over, "left"),
        (0.0, under, "left"),
        (0.0, over, "right"),
        (0.0, under, "right"),
    )
    for across, up, side in (*places, *ends):
        x, y = label.x + across, label.y + up
        left = {"left": x, "center": x - label.width / 2, "right": x - label.width}[side]
        yield Placed(x, y, side, Box(left, y - label.height / 2, left + label.width, y + label.height / 2))


def along(points: Sequence[tuple[float, float]], *, width: float = 3.0) -> list[Box]:
    """Boxes that cover the line through `points`, for names to avoid."""
    boxes: list[Box] = []
    for (x, y), (next_x, next_y) in pairwise(points):
        steps = max(1, math.ceil(max(abs(next_x - x), abs(next_y - y)) / width))
        for step in range(steps + 1):
            across, up = x + (next_x - x) * step / steps, y + (next_y - y) * step / steps
            boxes.append(Box(across - width / 2, up - width / 2, across + width / 2, up + width / 2))
    return boxes
