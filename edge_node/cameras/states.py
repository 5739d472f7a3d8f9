"""What can be said of a camera: a table of its states, and when it is tried again."""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

State = Literal["starting", "live", "frozen", "dark", "reconnecting", "denied", "ended", "stopped"]
Event = Literal["picture", "frozen", "dark", "lost", "denied", "ended", "stopped"]

FIRST_PAUSE_S = 0.5
DENIED_PAUSE_S = 30.0
"""Cameras lock whom they have denied too often."""

_WHILE_IT_RUNS: dict[Event, State] = {
    "picture": "live",
    "frozen": "frozen",
    "dark": "dark",
    "lost": "reconnecting",
    "denied": "denied",
    "ended": "ended",
    "stopped": "stopped",
}
_TABLE: dict[State, dict[Event, State]] = {
    "starting": _WHILE_IT_RUNS,
    "live": _WHILE_IT_RUNS,
    "frozen": _WHILE_IT_RUNS,
    "dark": _WHILE_IT_RUNS,
    "reconnecting": _WHILE_IT_RUNS,
    "denied": _WHILE_IT_RUNS,
    "ended": {"stopped": "stopped"},
    "stopped": {},
}
"""What has ended by itself, such as a file, says nothing more; what was stopped, nothing at all."""


class Change(NamedTuple):
    """`why` is for people; "" where there is nothing to explain. `at_s` is unix time."""

    state: State
    since_s: float
    why: str = ""


def after(now: Change, event: Event, at_s: float, why: str = "") -> Change:
    """The same object where nothing changes: pictures of a live camera come by the second."""
    state = _TABLE[now.state].get(event, now.state)
    if state == now.state and (why == now.why or not why):
        return now
    return Change(state, at_s if state != now.state else now.since_s, why)


def pause_s(event: Event, failures: int, longest_s: float, rng: random.Random) -> float:
    """Before the next attempt, after so many in a row that brought no picture: from half to all of a time that doubles
    each time."""
    least_s = DENIED_PAUSE_S if event == "denied" else FIRST_PAUSE_S
    most_s = min(max(longest_s, least_s), least_s * 2.0 ** min(failures, 20))
    return rng.uniform(most_s / 2, most_s)
