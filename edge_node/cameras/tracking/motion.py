"""Where tracks are, how fast they go, and how sure that is: a Kalman filter for all tracks at once.

SORT's (Bewley et al. 2016, arXiv:1602.00763) with ByteTrack's noise in proportion to the size of the box (Zhang et al.
2022, arXiv:2110.06864), in seconds: the centre moves at a speed that a white acceleration changes, so that two steps
predict what one step of both does, and the sides are a random walk, which a gap cannot make negative or huge. The noise
is the same along both axes and the axes do not depend on each other: the covariance is one of 2 x 2 for the centre and
one number for the sides, and nothing has to be inverted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

_NOISE = 0.1
"""Of a detection: standard deviation of its centre and sides, as a share of its size."""
_FIRST_SPEED = 2.0
"""Of a track just begun: standard deviation of its speed, in sizes a second."""
_ACCELERATION = 0.3
"""Variance that the speed gains, in sizes² a second³."""
_GROWTH = 0.05
"""Variance that the sides gain, in sizes² a second."""


class Motions(NamedTuple):
    """A row for each track, in pixels and seconds: `centres`, `sides` (width and height) and `speeds` [n, 2]; variances
    [n] of the centre and the speed along each axis, what the two have in common, and the variance of the sides."""

    centres: Floats
    sides: Floats
    speeds: Floats
    centre_variance: Floats
    common_variance: Floats
    speed_variance: Floats
    side_variance: Floats


def begun(boxes: Floats) -> Motions:
    """Tracks that have one detection each; `boxes` [n, 4]: left, top, right, bottom."""
    centres, sides = _parts(boxes)
    area = _area(sides)
    seen = _NOISE**2 * area
    unmoved, speed = np.zeros_like(centres), _FIRST_SPEED**2 * area
    return Motions(centres, sides, unmoved, seen, np.zeros(len(boxes)), speed, seen)


def predicted(motions: Motions, dt_s: float) -> Motions:
    """The same tracks `dt_s` later."""
    area = _area(motions.sides)
    shaken = _ACCELERATION * area
    common, speed = motions.common_variance, motions.speed_variance
    return motions._replace(
        centres=motions.centres + motions.speeds * dt_s,
        centre_variance=motions.centre_variance + 2 * dt_s * common + dt_s**2 * speed + shaken * (dt_s**3 / 3),
        common_variance=common + dt_s * speed + shaken * (dt_s**2 / 2),
        speed_variance=speed + shaken * dt_s,
        side_variance=motions.side_variance + _GROWTH * area * dt_s,
    )


def corrected(motions: Motions, rows: Rows, boxes: Floats) -> Motions:
    """The tracks in `rows`, each once, were found at `boxes` [len(rows), 4]; the others are as they were."""
    at = Motions(*(column[rows] for column in motions))
    noise = _NOISE**2 * _area(at.sides)
    whole = at.centre_variance + noise
    pull, push = at.centre_variance / whole, at.common_variance / whole
    side_pull = at.side_variance / (at.side_variance + noise)
    centres, sides = _parts(boxes)
    off = centres - at.centres
    found = Motions(
        at.centres + pull[:, None] * off,
        at.sides + side_pull[:, None] * (sides - at.sides),
        at.speeds + push[:, None] * off,
        (1 - pull) * at.centre_variance,
        (1 - pull) * at.common_variance,
        at.speed_variance - push * at.common_variance,
        (1 - side_pull) * at.side_variance,
    )
    return Motions(*(_put(column, rows, values) for column, values in zip(motions, found, strict=True)))


def scaled(motions: Motions, horizontally: float, vertically: float) -> Motions:
    """The same tracks in a picture that is so many times as wide and as high."""
    factors, area = np.array([horizontally, vertically]), horizontally * vertically
    moved = [column * factors for column in motions[:3]]
    return Motions(*moved, *(column * area for column in motions[3:]))


def kept(motions: Motions, rows: Rows) -> Motions:
    return Motions(*(column[rows] for column in motions))


def joined(first: Motions, then: Motions) -> Motions:
    return Motions(*(np.concatenate(pair) for pair in zip(first, then, strict=True)))


def boxes_of(motions: Motions) -> Floats:
    """[n, 4]: left, top, right, bottom."""
    half = motions.sides / 2
    return np.concatenate([motions.centres - half, motions.centres + half], axis=1)


def doubt_of(motions: Motions) -> Floats:
    """[n]: the standard deviation of the centre along each axis, in pixels."""
    return np.asarray(np.sqrt(motions.centre_variance))


def _parts(boxes: Floats) -> tuple[Floats, Floats]:
    near, far = boxes[:, :2], boxes[:, 2:]
    return (near + far) / 2, far - near


def _area(sides: Floats) -> Floats:
    """The square of the size, which is the geometric mean of the sides."""
    return np.asarray(sides[:, 0] * sides[:, 1])


def _put(column: Floats, rows: Rows, values: Floats) -> Floats:
    new: Floats = column.copy()
    new[rows] = values
    return new
