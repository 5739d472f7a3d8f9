"""`Server-Timing` (W3C) as a mapping from phase to milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

PHASES = ("route", "retry", "network", "queue", "decode", "infer", "encode", "escalate", "prefill", "decode-tokens")
"""The phases of one hop, in the order a request meets them. `total` is the whole hop as its server saw it."""

TOTAL: Final = "total"
_ENTRY = re.compile(r"\s*([A-Za-z0-9_\-]{1,32})\s*;\s*dur=([0-9]+(?:\.[0-9]+)?)\s*")
_MAX_HEADER_CHARACTERS = 1024


def format_server_timing(phases_ms: Mapping[str, float]) -> str:
    """One entry a phase, milliseconds with three digits: `queue;dur=0.112, infer;dur=1.980, total;dur=2.310`."""
    return ", ".join([f"{phase};dur={milliseconds:.3f}" for phase, milliseconds in phases_ms.items()])


def parse_server_timing(value: str | None) -> dict[str, float]:
    """Phases of an upstream's header; entries out of form are dropped, since timings are never worth a failure."""
    phases: dict[str, float] = {}
    for entry in _bounded(value or "").split(","):
        found = _ENTRY.fullmatch(entry)
        if found:
            milliseconds = float(found.group(2))
            if math.isfinite(milliseconds):
                phases[found.group(1)] = milliseconds
    return phases


def _bounded(value: str) -> str:
    """A header that is too long loses its last entries, whole: half of a number would be another number."""
    return value if len(value) <= _MAX_HEADER_CHARACTERS else value[:_MAX_HEADER_CHARACTERS].rpartition(",")[0]


def across_hop(hop_ms: float, upstream_ms: Mapping[str, float]) -> dict[str, float]:
    """The phases of a request that took one more hop: the upstream's own, plus the network it crossed.

    network = hop time minus the upstream's own total, all of the hop where it told none; networks of several hops
    add up.
    """
    phases = dict(upstream_ms)
    crossed = max(0.0, hop_ms - phases.pop(TOTAL, 0.0))
    phases["network"] = phases.get("network", 0.0) + crossed
    return phases
