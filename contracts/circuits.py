"""The circuit of one upstream: a table that stops asking who keeps failing, and asks again one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "probing"]
Event = Literal["started", "succeeded", "failed", "abandoned"]

FAILURES_TO_OPEN = 5
BAD_SHARE, BAD_OUTCOMES = 0.5, 20
_MEMORY = 0.9
OPEN_S = 1.0
_BLAME_FACTOR = 3.0
_BLAME_FLOOR_MS = 100.0


class Circuit:
    """Closed until 5 failures in a row, or half of the last twenty or so; then open until one probe succeeds, one a
    second.

    Every `started` must be followed by one of the other events, `abandoned` when the request was cancelled or says
    nothing about the upstream. `may_open` is asked each time that it would open. Times are on the caller's clock, in
    seconds; `closed_at_s` is when it closed last.
    """

    def __init__(self, may_open: Callable[[], bool] = lambda: True) -> None:
        self.state: State = "closed"
        self.may_open = may_open
        self.failures = 0
        self.failing = 0.0
        self.outcomes = 0
        self.open_until_s = 0.0
        self.closed_at_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """Whether a request may go to this upstream now: one probe at a time once the open time is over."""
        return self.state == "closed" or (self.state == "open" and now_s >= self.open_until_s)

    def on(self, event: Event, now_s: float) -> None:
        _TABLE[self.state, event](self, now_s)


def blames(allowed_ms: float, expected_ms: float) -> bool:
    """Whether an upstream that did not answer within `allowed_ms` is at fault, or its caller who left it no time."""
    return allowed_ms >= _BLAME_FACTOR * expected_ms + _BLAME_FLOOR_MS


def _stay(circuit: Circuit, now_s: float) -> None:
    pass


def _succeed(circuit: Circuit, now_s: float) -> None:
    circuit.failures = 0
    _note(circuit, 0.0)


def _close(circuit: Circuit, now_s: float) -> None:
    circuit.state, circuit.closed_at_s = "closed", now_s
    circuit.failures, circuit.failing, circuit.outcomes = 0, 0.0, 0


def _count(circuit: Circuit, now_s: float) -> None:
    circuit.failures += 1
    _note(circuit, 1.0)
    is_bad = circuit.outcomes >= BAD_OUTCOMES and circuit.failing >= BAD_SHARE
    if (circuit.failures >= FAILURES_TO_OPEN or is_bad) and circuit.may_open():
        _open(circuit, now_s)


def _note(circuit: Circuit, failed: float) -> None:
    circuit.outcomes += 1
    circuit.failing += (1.0 - _MEMORY) * (failed - circuit.failing)


def _open(circuit: Circuit, now_s: float) -> None:
    circuit.state = "open"
    circuit.open_until_s = now_s + OPEN_S


def _probe(circuit: Circuit, now_s: float) -> None:
    circuit.state = "probing"


def _ask_again(circuit: Circuit, now_s: float) -> None:
    circuit.state, circuit.open_until_s = "open", now_s


_TABLE: dict[tuple[State, Event], Callable[[Circuit, float], None]] = {
    ("closed", "started"): _stay,
    ("closed", "succeeded"): _succeed,
    ("closed", "failed"): _count,
    ("closed", "abandoned"): _stay,
    ("open", "started"): _probe,
    ("open", "succeeded"): _stay,
    ("open", "failed"): _stay,
    ("open", "abandoned"): _stay,
    ("probing", "started"): _stay,
    ("probing", "succeeded"): _close,
    ("probing", "failed"): _open,
    ("probing", "abandoned"): _ask_again,
}
"""Answers to requests that began before the circuit opened change nothing: only the probe decides."""
