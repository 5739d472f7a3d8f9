"""Pictures that say nothing: the same one for ever, or a black one."""

from __future__ import annotations

from typing import Literal

import numpy as np

from runtime.serving.engines.tensors import Array

Look = Literal["picture", "frozen", "dark"]

_STEP = 16
_BLACK_LEVEL, _BLACK_SPREAD = 24.0, 3.0
"""Black is 16 in video, and a little noise above it."""


class Stillness:
    """A camera's picture always has some noise: one that is the same to the last bit for `frozen_after_s` is old.

    0 takes none for frozen. A picture counts as black after `dark_after_s`, in seconds as well.
    """

    def __init__(self, frozen_after_s: float, dark_after_s: float) -> None:
        self._frozen_after_s = frozen_after_s
        self._dark_after_s = dark_after_s
        self._last = b""
        self._changed_s = 0.0
        self._bright_s: float | None = None

    def look(self, luma: Array, at_s: float) -> Look:
        """`luma` uint8 [height, width], of which one pixel in 256 is looked at."""
        sample = np.ascontiguousarray(luma[:: min(_STEP, len(luma)), ::_STEP])
        if self._is_dark(sample, at_s):
            return "dark"
        told = sample.tobytes()
        if told != self._last:
            self._last, self._changed_s = told, at_s
        is_old = self._frozen_after_s > 0.0 and at_s - self._changed_s >= self._frozen_after_s
        return "frozen" if is_old else "picture"

    def _is_dark(self, sample: Array, at_s: float) -> bool:
        if self._bright_s is None or not (sample.mean() < _BLACK_LEVEL and sample.std() < _BLACK_SPREAD):
            self._bright_s = at_s
        return at_s - self._bright_s >= self._dark_after_s > 0.0
