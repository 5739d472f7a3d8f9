"""Made-up scenes of which the truth is known: people who walk across a picture, and a detector that errs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.serving.models.found import Found

Box = tuple[float, float, float, float]
Truth = dict[int, Box]
"""Who is where, by the number of the walker."""

WIDTH, HEIGHT = 768, 576


class Detector(NamedTuple):
    """`noise` is a share of a box's size; `missed` of the people are not found, `weak` only with a low score, nor is
    who is hidden to `hidden`; `false` is how many boxes a picture has on average where nobody is."""

    noise: float = 0.03
    missed: float = 0.2
    weak: float = 0.1
    hidden: float = 0.6
    false: float = 0.3


class Walker(NamedTuple):
    """Who comes in at (`x`, `y`), the feet, at `from_s`; speeds in pixels a second. The way sways in `period_s`."""

    x: float
    y: float
    speed_x: float
    speed_y: float
    height: float
    sway: float
    period_s: float
    from_s: float
    until_s: float

    def box(self, at_s: float) -> Box:
        walked_s = at_s - self.from_s
        sway = self.sway * math.sin(math.tau * walked_s / self.period_s)
        x, y = self.x + self.speed_x * walked_s + sway, self.y + self.speed_y * walked_s
        half = 0.2 * self.height
        return (x - half, y - self.height, x + half, y)


def crowd(rng: np.random.Generator, people: int, seconds: float, together: float = 0.3) -> list[Walker]:
    """Who comes from either side, at walking pace, from random moments on; a share of them walks beside another."""
    walkers = [_walker(rng, seconds)]
    while len(walkers) < people:
        walkers.append(_beside(rng, walkers[-1]) if rng.random() < together else _walker(rng, seconds))
    return walkers


def pictures(
    rng: np.random.Generator, walkers: Sequence[Walker], detector: Detector, times_s: npt.NDArray[np.float64]
) -> Iterator[tuple[float, Truth, Found]]:
    """Moment, truth, and what is found of it."""
    for at_s in times_s.tolist():
        there = [number for number, walker in enumerate(walkers) if walker.from_s <= at_s <= walker.until_s]
        truth = {number: walkers[number].box(at_s) for number in there}
        yield at_s, truth, _seen(rng, truth, detector)


def found(*boxes: Box, score: float = 0.9, label: int = 0) -> Found:
    """All with the same score and label."""
    count = len(boxes)
    return Found(
        np.array(boxes, np.float32).reshape(count, 4),
        np.full(count, score, np.float32),
        np.full(count, label, np.int32),
    )


def _walker(rng: np.random.Generator, seconds: float) -> Walker:
    height = rng.uniform(60, 140)
    pace = rng.uniform(0.5, 1.1) * height  # a person of 1.7 m walks 0.9 to 1.9 m a second
    rightwards = rng.random() < 0.5
    from_s = rng.uniform(0, seconds)
    return Walker(
        x=0.0 if rightwards else float(WIDTH),
        y=rng.uniform(height, HEIGHT),
        speed_x=pace if rightwards else -pace,
        speed_y=rng.uniform(-0.1, 0.1) * height,
        height=height,
        sway=0.1 * height,
        period_s=rng.uniform(3, 6),
        from_s=from_s,
        until_s=from_s + WIDTH / pace,
    )


def _beside(rng: np.random.Generator, walker: Walker) -> Walker:
    """Within an arm's length, a little behind."""
    side, behind = rng.uniform(-0.15, 0.15) * walker.height, rng.uniform(0.2, 0.5) * walker.height
    back = math.copysign(behind, -walker.speed_x)
    return walker._replace(x=walker.x + back, y=walker.y + side, period_s=rng.uniform(3, 6))


def _seen(rng: np.random.Generator, truth: Truth, detector: Detector) -> Found:
    boxes: list[npt.NDArray[np.float64]] = []
    scores: list[float] = []
    for box in truth.values():
        fate, size = rng.random(), math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        if fate >= detector.missed and _hidden(box, truth) < detector.hidden:
            boxes.append(np.array(box) + rng.normal(0, detector.noise * size, 4))
            weak = fate < detector.missed + detector.weak
            scores.append(rng.uniform(0.15, 0.45) if weak else rng.uniform(0.6, 0.95))
    for _ in range(rng.poisson(detector.false)):
        height = rng.uniform(60, 140)
        x, y = rng.uniform(0, WIDTH), rng.uniform(height, HEIGHT)
        boxes.append(np.array([x - 0.2 * height, y - height, x + 0.2 * height, y]))
        scores.append(rng.uniform(0.3, 0.8))
    order = np.argsort(-np.array(scores), kind="stable")
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4)[order],
        np.array(scores, np.float32)[order],
        np.zeros(len(scores), np.int32),
    )


def _hidden(box: Box, truth: Truth) -> float:
    """The largest share of it that is behind one other, whose feet are nearer."""
    return max((_common(box, other) for other in truth.values() if other[3] > box[3]), default=0.0)


def _common(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0) / ((box[2] - box[0]) * (box[3] - box[1]))
