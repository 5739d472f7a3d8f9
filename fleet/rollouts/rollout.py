"""The whole of one rollout as it is kept: its plan, its head, its nodes, and who is where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from contracts.risk.sequential import Decision
from fleet.rollouts.nodes import IN_WORK, NODES, Node, NodePhase, Sign
from fleet.rollouts.plan import Plan

Phase = Literal["staging", "judging", "halted", "reverting", "completed", "rolled-back"]
FINAL: frozenset[Phase] = frozenset(("completed", "rolled-back"))
Hold = Literal["gate", "bake", "approval"]


class Head(msgspec.Struct):
    """What of a rollout is not one node's. `listened_s` is its own clock, `since_s` when, by that clock, the present
    phase and stage began. `decision` is the gate's, `why` what it said last. `promoted`: this stage is approved of."""

    phase: Phase
    started_at_s: float
    stage: int = 0
    listened_s: float = 0.0
    since_s: float = 0.0
    paused: bool = False
    promoted: bool = False
    decision: Decision = "continue"
    why: str = ""
    reason: str = ""
    decided_at_s: float | None = None
    ended_at_s: float | None = None


class Rollout:
    """`changed`: the nodes that are to be written, since somebody last took their names. `edits` counts all changes of
    nodes."""

    def __init__(self, plan: Plan, head: Head, nodes: Mapping[str, Node]) -> None:
        self.plan = plan
        self.head = head
        self.nodes = dict(nodes)
        self.changed: set[str] = set()
        self.edits = 0
        self._in: dict[NodePhase, dict[str, None]] = {}
        self._failed = {name for name, node in self.nodes.items() if node.error}
        for name, node in self.nodes.items():
            self._in.setdefault(node.phase, {})[name] = None

    def names(self, *phases: NodePhase) -> Iterator[str]:
        """Of each phase, in the order in which they came into it."""
        for phase in phases:
            yield from self._in.get(phase, ())

    def count(self, *phases: NodePhase) -> int:
        return sum(len(self._in.get(phase, ())) for phase in phases)

    @property
    def in_work(self) -> int:
        return self.count(*IN_WORK)

    @property
    def failures(self) -> int:
        return len(self._failed)

    @property
    def failed(self) -> list[str]:
        """Whatever became of them since."""
        return sorted(self._failed)

    def move(self, name: str, sign: Sign) -> bool:
        """Whether that means anything to this node now."""
        node = self.nodes[name]
        phase = NODES.get((node.phase, sign))
        if phase is None:
            return False
        del self._in[node.phase][name]
        self._in.setdefault(phase, {})[name] = None
        node.phase = phase
        self.touch(name)
        return True

    def mark(self, name: str, error: str) -> None:
        """`error` "" forgives."""
        self.nodes[name].error = error
        (self._failed.add if error else self._failed.discard)(name)
        self.touch(name)

    def touch(self, name: str) -> None:
        """Something of this node has changed."""
        self.changed.add(name)
        self.edits += 1

    @property
    def holds(self) -> tuple[Hold, ...]:
        """What the next stage waits for, once all nodes of this one are healthy."""
        policy, gate, head = self.plan.policy, self.plan.gate, self.head
        found: list[Hold] = []
        if gate is not None and head.stage >= gate.stage and head.decision != "accept":
            found.append("gate")
        if head.listened_s - head.since_s < policy.bake_s:
            found.append("bake")
        if head.stage + 1 in policy.approve_after and not head.promoted:
            found.append("approval")
        return tuple(found)
