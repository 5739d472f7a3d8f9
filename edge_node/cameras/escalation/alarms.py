"""Doubts about whole pictures: they begin when something holds for a while, and end when it does no more."""

from __future__ import annotations

import math
from typing import Literal

from edge_node.cameras.escalation.windows import set_back_s

Change = Literal["began", "ended"]


class Alarm:
    """Of one kind, `why`. After it has begun it does not begin again for `again_s`. Times are those of the pictures;
    where their clock is set back, all goes on from there.

    `event` and `label` are what is said of it now, "" where it is silent; `began_s` when it began last.
    """

    def __init__(self, why: str, after_s: float, again_s: float) -> None:
        self.why = why
        self.event = self.label = ""
        self.began_s = -math.inf
        self._after_s = after_s
        self._again_s = again_s
        self._since_s: float | None = None
        self._last_s = self._rang_s = -math.inf

    def look(self, holds: bool, at_s: float) -> Change | None:
        """What a picture changes. Whoever is told "began" gives it an event, and takes it away at "ended"."""
        self._mind(at_s)
        if not holds:
            self._since_s = None
            return "ended" if self.event else None
        if self._since_s is None:
            self._since_s = at_s
        if self.event or at_s - self._since_s < self._after_s or at_s - self._rang_s < self._again_s:
            return None
        self.began_s = self._rang_s = at_s
        return "began"

    def _mind(self, at_s: float) -> None:
        back_s = set_back_s(self._last_s, at_s)
        self._last_s = at_s if back_s else max(self._last_s, at_s)
        self._rang_s -= back_s
        if self._since_s is not None:
            self._since_s -= back_s
