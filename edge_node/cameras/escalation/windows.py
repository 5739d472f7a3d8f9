"""When each thing is judged, and by which look at it: the best one within a short while."""

from __future__ import annotations

import math

import msgspec

from edge_node.cameras.escalation.config import EscalationConfig
from edge_node.cameras.escalation.subjects import Look

JUMP_S = 2.0
"""Pictures that come out of their order are no further apart."""


def set_back_s(last_s: float, at_s: float) -> float:
    """By how much the clock was set back since `last_s`; 0 where it was not."""
    return last_s - at_s if at_s < last_s - JUMP_S else 0.0


class _Window(msgspec.Struct):
    """Of one subject. `best` is None between windows; `was_broken` when it was judged; `asked_s` is when the cloud was
    asked about it last."""

    opened_s: float
    best: Look | None
    judged_s: float = 0.0
    asked_s: float = -math.inf
    was_broken: bool = False


class Windows:
    """Times are those of the pictures; where their clock is set back, all goes on from there. A window keeps a picture,
    for `look_s` and no longer."""

    def __init__(self, config: EscalationConfig) -> None:
        self._config = config
        self._windows: dict[str, _Window] = {}
        self._last_s = -math.inf

    def saw(self, look: Look) -> Look | None:
        """The best look at this subject, when it is time to judge it."""
        at_s, subject = look.shot.at_s, look.subject
        self._mind(at_s)
        window = self._windows.get(subject.event)
        if window is None:
            window = self._windows[subject.event] = _Window(at_s, look)
        elif window.best is None:
            if not self._is_due_again(window, look):
                return None
            window.opened_s, window.best = at_s, look
        elif subject.score > window.best.subject.score:
            window.best = look
        return self._close(window, look) if at_s - window.opened_s >= self._config.look_s else None

    def kept(self, event: str) -> None:
        """Nobody was asked after all."""
        if event in self._windows:
            self._windows[event].asked_s = -math.inf

    def without(self, events: frozenset[str]) -> list[Look]:
        """Forgets all but `events`: the looks at those of the others that nobody has judged."""
        over = [event for event in self._windows if event not in events]
        left = (self._windows.pop(event).best for event in over)
        return [best for best in left if best is not None]

    def _mind(self, at_s: float) -> None:
        back_s = set_back_s(self._last_s, at_s)
        self._last_s = at_s if back_s else max(self._last_s, at_s)
        for window in self._windows.values() if back_s else ():
            window.opened_s -= back_s
            window.judged_s -= back_s
            window.asked_s -= back_s

    def _close(self, window: _Window, last: Look) -> Look:
        """What is broken stays so, whichever picture of it is the best."""
        best = window.best or last
        window.best, window.was_broken = None, last.subject.broken
        window.judged_s = window.asked_s = last.shot.at_s
        return best._replace(subject=best.subject._replace(broken=last.subject.broken))

    def _is_due_again(self, window: _Window, look: Look) -> bool:
        """A track that has broken since it was kept does not wait."""
        at_s, again_s = look.shot.at_s, self._config.again_s
        has_broken = look.subject.broken and not window.was_broken
        return (has_broken and at_s - window.asked_s >= again_s) or 0 < again_s <= at_s - window.judged_s
