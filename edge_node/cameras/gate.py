"""The motion gate: pictures in which nothing changed since the last one that the model saw need not be seen by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, cast

import cv2
import msgspec
import numpy as np
from msgspec import Meta

from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size

Verdict = Literal["moved", "held", "refresh", "still"]
"""Something moved; it did a moment ago; nothing did for long, so that the model looks again; nothing did."""

_WIDTH = 160
"""Pictures are halved until one more time would make them narrower: a person 30 pixels wide in a picture of 1,920 is 3
cells across, and the noise of a sensor averages out. OpenCV halves 50 times faster than it shrinks by any other factor.
"""
_NOISE_FACTOR = 5.0
_NOISE_MEMORY = 0.95
_NOISE_MOST = 20.0


class MotionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`level`: how many of 256 levels of grey a cell has to change by; more where the picture is noisy. `min_area`: the
    share of the watched picture that has to. For `hold_s` after a motion, and every `refresh_s`, pictures pass anyway;
    `refresh_s` 0: never."""

    enabled: bool = True
    level: Annotated[float, Meta(ge=1, le=128)] = 10.0
    min_area: Annotated[float, Meta(gt=0, le=1)] = 0.0005
    hold_s: Annotated[float, Meta(ge=0, le=3600)] = 1.0
    refresh_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0


class MotionGate:
    """`watched` draws, for a size, which cells count: uint8 [height, width], 0 for those that do not; None: all.

    Each picture is compared with the last one that passed: what moves slowly has moved far enough some day, and what
    came to a stand was seen standing.
    """

    def __init__(self, config: MotionConfig, watched: Callable[[Size], Array | None]) -> None:
        self._config = config
        self._watched = watched
        self._shape = (0, 0)
        self._mask: Array | None = None
        self._cells = 0
        self._passed: Array | None = None
        self._last: Array | None = None
        self._noise: float | None = None
        self._moved_s = self._passed_s = 0.0

    def look(self, luma: Array, at_s: float) -> Verdict:
        """`luma` uint8 [height, width]; `at_s` when it was taken, in seconds."""
        if not self._config.enabled:
            return "moved"
        small = self._shrunk(luma)
        verdict = self._judge(small, at_s)
        self._last = small
        if verdict != "still":
            self._passed, self._passed_s = small, at_s
        return verdict

    def _judge(self, small: Array, at_s: float) -> Verdict:
        if self._passed is None or self._has_moved(small, self._passed):
            self._moved_s = at_s
            return "moved"
        if 0.0 <= at_s - self._moved_s <= self._config.hold_s:
            return "held"
        refresh_s = self._config.refresh_s
        return "refresh" if refresh_s and not 0.0 <= at_s - self._passed_s < refresh_s else "still"

    def _has_moved(self, small: Array, passed: Array) -> bool:
        self._learn_noise(small)
        level = max(self._config.level, _NOISE_FACTOR * (self._noise or 0.0))
        changed = cv2.threshold(cv2.absdiff(small, passed), level, 1, cv2.THRESH_BINARY)[1]
        if self._mask is not None:
            changed = cv2.bitwise_and(changed, self._mask)
        return cv2.countNonZero(changed) > self._config.min_area * self._cells

    def _learn_noise(self, small: Array) -> None:
        """What cells differ by from one picture to the next; a motion counts for little of it."""
        if self._last is not None:
            difference = cv2.mean(cv2.min(cv2.absdiff(small, self._last), _NOISE_MOST))[0]
            known = self._noise if self._noise is not None else difference
            self._noise = _NOISE_MEMORY * known + (1.0 - _NOISE_MEMORY) * difference

    def _shrunk(self, luma: Array) -> Array:
        """uint8; where the size is a new one, nothing of the old pictures can be compared."""
        small = luma
        while small.shape[1] >= 2 * _WIDTH and small.shape[0] >= 2:
            height, width = small.shape[0] // 2, small.shape[1] // 2
            small = cv2.resize(small[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        if small.shape != self._shape:
            self._begin(Size(small.shape[1], small.shape[0]))
        return cast(Array, cv2.blur(small, (3, 3)))

    def _begin(self, small: Size) -> None:
        self._shape, self._passed, self._last = (small.height, small.width), None, None
        watched = self._watched(small)
        self._mask = None if watched is None else np.minimum(watched, 1).astype(np.uint8)
        self._cells = small.width * small.height if self._mask is None else max(1, int(self._mask.sum()))
