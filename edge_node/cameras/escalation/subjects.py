"""What the cloud can be asked about: a thing on its way through the pictures, or what a whole picture shows."""

from __future__ import annotations

from typing import NamedTuple

from contracts.camera_events import Box
from edge_node.cameras.sources.shot import Shot
from edge_node.pipelines import Looked


class Subject(NamedTuple):
    """As the edge sees it now. `event` names it in all that is said of it.

    `confidence` is the probability that the cloud would give the same label, None where nobody knows; `box` is in
    pixels, None for the whole picture; `seen`: in this very picture; `broken`: its track was, or its label wavers.
    `track` is 0 where it is none; `snapshot` is where the picture is that the event began with.
    """

    event: str
    label: str
    score: float
    confidence: float | None
    began_at_s: float
    box: Box | None = None
    seen: bool = True
    broken: bool = False
    track: int = 0
    zones: tuple[str, ...] = ()
    snapshot: str = ""


class Look(NamedTuple):
    """A subject in one picture."""

    subject: Subject
    shot: Shot
    looked: Looked
