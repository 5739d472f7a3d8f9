"""Where one node of a rollout is, and the table of what moves it on."""

from __future__ import annotations

from typing import Literal

import msgspec

NodePhase = Literal[
    "planned", "waiting", "absent", "assigned", "settling", "healthy", "failed", "reverting", "reverted", "superseded"
]
Sign = Literal["due", "gone", "back", "told", "active", "steady", "broken", "stop", "restored", "again", "taken"]

NODES: dict[tuple[NodePhase, Sign], NodePhase] = {
    ("planned", "due"): "waiting",
    ("waiting", "gone"): "absent",
    ("absent", "back"): "waiting",
    ("waiting", "told"): "assigned",
    ("assigned", "active"): "settling",
    ("settling", "gone"): "assigned",
    ("settling", "steady"): "healthy",
    ("assigned", "broken"): "failed",
    ("settling", "broken"): "failed",
    ("healthy", "broken"): "failed",
    ("assigned", "stop"): "reverting",
    ("settling", "stop"): "reverting",
    ("healthy", "stop"): "reverting",
    ("failed", "stop"): "reverting",
    ("reverting", "restored"): "reverted",
    ("failed", "again"): "waiting",
    ("reverting", "again"): "waiting",
    ("reverted", "again"): "waiting",
    ("waiting", "taken"): "superseded",
    ("absent", "taken"): "superseded",
    ("assigned", "taken"): "superseded",
    ("settling", "taken"): "superseded",
    ("healthy", "taken"): "superseded",
    ("failed", "taken"): "superseded",
    ("reverting", "taken"): "superseded",
    ("reverted", "taken"): "superseded",
}
"""`planned`: of a later stage. `waiting`: not told yet, for want of room or outside its window. `absent`: was off line
before it was told. `settling`: serves the new version, not long enough. `superseded`: another rollout has it."""

IN_WORK: tuple[NodePhase, ...] = ("assigned", "settling")
EXPOSED: tuple[NodePhase, ...] = ("assigned", "settling", "healthy", "failed")
"""Those that have the new version, or may take it at any moment."""
TOLD: tuple[NodePhase, ...] = (*EXPOSED, "reverting", "reverted")


class Node(msgspec.Struct):
    """`sequence`: the desired document that speaks of it, 0 before there is one. `told_s` and `active_s` are of the
    rollout's own clock, which counts the seconds in which nodes could be heard. `error`: why it failed."""

    phase: NodePhase = "planned"
    online: bool = False
    sequence: int = 0
    told_s: float = 0.0
    active_s: float = 0.0
    error: str = ""
