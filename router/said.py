"""What a node's answer of a known form says, and what all such answers say alike."""

from __future__ import annotations

import msgspec

from runtime.links.http.exchanges import Fixed


class Said(msgspec.Struct):
    """What one answer says: the node's own phases, as it `wrote` them, its total in milliseconds, and its confidence,
    also as the `line` of a head; None and "" where it has none."""

    wrote: str
    total_ms: float
    confidence: float | None = None
    line: str = ""


class Told(msgspec.Struct, eq=False):
    """What all answers of one form with one verdict have alike: headers, how a prediction says its reason, and the
    names of the times, but for the total."""

    fixed: Fixed
    reason: bytes
    phases: tuple[str, ...]
