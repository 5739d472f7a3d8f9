"""What probes say of a static node: a table. One bad probe takes nobody away, and one good one brings nobody back.

As HAProxy's `fall 3` and `rise 2` do; who was never away needs one good probe only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

State = Literal["unknown", "online", "offline"]
Event = Literal["good", "bad"]

FALL, RISE = 3, 2
"""So many bad probes in a row take a node away, so many good ones bring it back."""


class Health:
    """`against` counts the probes in a row that spoke against its state."""

    def __init__(self) -> None:
        self.state: State = "unknown"
        self.against = 0

    @property
    def settled(self) -> bool:
        """Well, and nothing speaks against it. Whoever is not is worth asking soon."""
        return self.state == "online" and not self.against

    def on(self, event: Event) -> None:
        _TABLE[self.state, event](self)


def _stay(health: Health) -> None:
    health.against = 0


def _rise_at_once(health: Health) -> None:
    health.state, health.against = "online", 0


def _rise(health: Health) -> None:
    health.against += 1
    if health.against >= RISE:
        health.state, health.against = "online", 0


def _fall(health: Health) -> None:
    health.against += 1
    if health.against >= FALL:
        health.state, health.against = "offline", 0


_TABLE: dict[tuple[State, Event], Callable[[Health], None]] = {
    ("unknown", "good"): _rise_at_once,
    ("unknown", "bad"): _fall,
    ("online", "good"): _stay,
    ("online", "bad"): _fall,
    ("offline", "good"): _rise,
    ("offline", "bad"): _stay,
}


def leading_to(state: State) -> list[Event]:
    """Events after which a node that was unknown is in that state."""
    leading: dict[State, list[Event]] = {"unknown": [], "online": ["good"], "offline": ["bad"] * FALL}
    return leading[state]
