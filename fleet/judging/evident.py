"""What is seen of a new version, one audit or one booking of counts at a time."""

from __future__ import annotations

import msgspec

from contracts.quality import Counts


class Audited(msgspec.Struct, frozen=True, tag=True):
    """An audit of the new version on one node."""

    node: str
    agree: bool
    at_s: float


class Counted(msgspec.Struct, frozen=True, tag=True):
    """What so many of the nodes that serve the new version have newly counted, together."""

    nodes: int
    counts: Counts
    at_s: float


Evident = Audited | Counted
