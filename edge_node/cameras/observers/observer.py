"""What all observers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from contracts.camera_events import Verdict
from edge_node.cameras.escalation.subjects import Subject
from edge_node.cameras.marks import Mark
from edge_node.cameras.sources.shot import Shot
from edge_node.pipelines import Looked


class Observer(Protocol):
    """On the event loop; must not block."""

    def saw(self, shot: Shot, looked: Looked) -> None:
        """What the model said to a picture."""
        ...

    def rested(self, at_s: float) -> None:
        """Nothing has moved since the last picture."""
        ...

    def passed(self, at_s: float) -> None:
        """Time has, and no picture came."""
        ...

    def marks(self) -> Sequence[Mark]:
        """What is to be drawn over the last picture."""
        ...

    def subjects(self) -> Sequence[Subject]:
        """All that goes on, as the last picture has it."""
        ...

    def judged(self, event: str, verdict: Verdict, label: str = "") -> None:
        """What is worth what was said of an event, and what it is called by the cloud, "" where that said nothing."""
        ...

    def end(self, at_s: float) -> None:
        """The camera is watched no more."""
        ...
