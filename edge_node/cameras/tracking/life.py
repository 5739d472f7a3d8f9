"""What is known of one track besides where it is: its state, as a table, and what its detections said."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

State = Literal["tentative", "confirmed", "lost", "ended"]
Event = Literal["found", "proven", "missing", "over"]

_WAVERS = 0.25
"""From this share of the votes for other labels on, a label wavers."""

_TABLE: dict[tuple[State, Event], State] = {
    ("tentative", "found"): "tentative",
    ("tentative", "proven"): "confirmed",
    ("tentative", "missing"): "tentative",
    ("tentative", "over"): "ended",
    ("confirmed", "found"): "confirmed",
    ("confirmed", "missing"): "lost",
    ("confirmed", "over"): "ended",
    ("lost", "found"): "confirmed",
    ("lost", "missing"): "lost",
    ("lost", "over"): "ended",
}


class Life:
    """A track begun by one detection. `id` is 0 until it is confirmed; `first_s` and `last_s` are capture times of its
    first and last detection, `began_run_s` and `found_run_s` the same on the tracker's clock, which stands while the
    scene does. `label` is the one with most votes, each as heavy as its score; of equals the lowest number.
    """

    def __init__(self, at_s: float, run_s: float) -> None:
        self.state: State = "tentative"
        self.id = 0
        self.first_s = self.last_s = at_s
        self.began_run_s = self.found_run_s = run_s
        self.hits = 0
        self.score = self.best_score = 0.0
        self.label = 0
        self.was_lost = False
        self._votes: defaultdict[int, float] = defaultdict(float)

    def on(self, event: Event) -> None:
        self.state = _TABLE[self.state, event]

    def note(self, label: int, score: float, at_s: float, run_s: float) -> None:
        """A detection of it, at a capture time and on the tracker's clock."""
        self.was_lost = self.was_lost or self.state == "lost"
        self.on("found")
        self.hits += 1
        self.score, self.last_s, self.found_run_s = score, at_s, run_s
        self.best_score = max(self.best_score, score)
        self._votes[label] += score
        self.label = min(self._votes, key=lambda voted: (-self._votes[voted], voted))

    @property
    def broken(self) -> bool:
        """Whether it was lost and found again, or its label wavers."""
        return self.was_lost or self._votes[self.label] <= (1 - _WAVERS) * sum(self._votes.values())
