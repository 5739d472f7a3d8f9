"""What the HTTP API of the fleet manager takes and gives, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from contracts.boards import Fingerprint
from contracts.manifest import Manifest, Measurements
from contracts.messages import ModelReport, NodeState, Vitals
from contracts.risk.sequential import Decision
from fleet.courses import Course
from fleet.judging.aims import Source
from fleet.judging.ruling import Evidence, Ruling
from fleet.rollouts.nodes import TOLD, Node
from fleet.rollouts.plan import Policy
from fleet.rollouts.rollout import FINAL, Hold, Phase
from fleet.rollouts.windows import Window


class RolloutRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`nodes` in the order they are exposed, or the group "all" (those on line first).

    `stages`: how many nodes have the bundle after each stage, as counts or percentages; the last covers all. None
    takes the fleet's default. `gate` "quality": it must do no worse than what it replaces; "health": nodes must get it
    running, and nothing more. `policy`: of a
    `Policy` those fields that are not to be the fleet's. `window`: when nodes may be told. `for_acceptance`: part of an
    acceptance, which nothing can be demanded for; it names one node.
    """

    bundle: str
    nodes: tuple[str, ...] | Literal["all"] = "all"
    stages: tuple[int | str, ...] = (1, "100%")
    gate: Literal["quality", "health"] = "quality"
    policy: dict[str, Any] = {}
    window: Window | None = None
    silence_s: float | None = None
    for_acceptance: bool = False


class StopRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of an abort, or a roll back."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)] = "the operator stopped it"


class GateView(msgspec.Struct, frozen=True):
    """What the gate says, and all that it rests on. `source`: where the old version's rate of disagreement is known
    from. `good_stopped` bounds the probability that a version as good as the old one is stopped."""

    decision: Decision
    reason: str
    streams: tuple[Evidence, ...]
    source: Source
    good_stopped: float


class RolloutView(msgspec.Struct, frozen=True):
    """A rollout as its operator sees it. Stages count from 1; times are unix seconds, durations seconds.

    `holds`: what the next stage waits for, once all nodes of this one are healthy. `exposed`: nodes that were told to
    take the bundle; `active`: those that serve it; `reverted`: those that have their previous one again; `absent`:
    those that were off line, and are told when they come back.
    `seconds_to_decision`: from start to completion or stop; `seconds_to_revert`: from the stop to the last node back.
    """

    id: str
    bundle: str
    model: str
    digest: str
    state: Phase
    stage: int
    stages: tuple[tuple[str, ...], ...]
    policy: Policy
    paused: bool
    holds: tuple[Hold, ...]
    nodes: int
    exposed: tuple[str, ...]
    exposed_nodes: int
    active: tuple[str, ...]
    absent: tuple[str, ...]
    reverted: tuple[str, ...]
    reverted_nodes: int
    stopped_stage: int | None
    reason: str
    gate: GateView | None
    node_states: dict[str, Node]
    started_at_s: float
    decided_at_s: float | None
    ended_at_s: float | None
    seconds: float | None
    seconds_to_decision: float | None
    seconds_to_revert: float | None

    @property
    def ended(self) -> bool:
        return self.state in FINAL


class NodeView(msgspec.Struct, frozen=True):
    """An enrolled node. `state` "unknown": it was never heard since the fleet manager started."""

    node: str
    region: str
    lat: float
    lon: float
    url: str
    reach: str
    target: str
    state: NodeState | Literal["unknown"]
    epoch: int
    desired: dict[str, str]
    desired_sequence: int
    reported: dict[str, ModelReport]
    reported_sequence: int
    fingerprint: Fingerprint
    enrolled_at_s: float
    vitals: Vitals = Vitals()


class ModelView(msgspec.Struct, frozen=True):
    """A published bundle."""

    digest: str
    name: str
    version: str
    model: str
    tier: str
    bytes: int
    published_at_s: float
    measurements: Measurements | None = None


class ModelDetail(msgspec.Struct, frozen=True):
    digest: str
    model: str
    manifest: Manifest
    measurements: Measurements | None = None


def view(course: Course) -> RolloutView:
    rollout = course.rollout
    plan, head = rollout.plan, rollout.head
    stopped = head.phase in ("halted", "reverting", "rolled-back")
    back = head.phase in ("reverting", "rolled-back")
    exposed = tuple(name for name, node in rollout.nodes.items() if node.phase in TOLD)
    reverted = tuple(rollout.names("reverted"))
    return RolloutView(
        id=plan.id,
        bundle=plan.bundle,
        model=plan.model,
        digest=plan.digest,
        state=head.phase,
        stage=head.stage + 1,
        stages=plan.stages,
        policy=plan.policy,
        paused=head.paused,
        holds=rollout.holds if head.phase == "judging" else (),
        nodes=len(rollout.nodes),
        exposed=exposed,
        exposed_nodes=len(exposed),
        active=tuple(rollout.names("settling", "healthy")),
        absent=tuple(rollout.names("absent")),
        reverted=reverted,
        reverted_nodes=len(reverted),
        stopped_stage=head.stage + 1 if stopped else None,
        reason=head.reason,
        gate=_gate(course.ruling) if course.ruling is not None else None,
        node_states=rollout.nodes,
        started_at_s=head.started_at_s,
        decided_at_s=head.decided_at_s,
        ended_at_s=head.ended_at_s,
        seconds=_between(head.started_at_s, head.ended_at_s),
        seconds_to_decision=_between(head.started_at_s, head.decided_at_s),
        seconds_to_revert=_between(head.decided_at_s, head.ended_at_s) if back else None,
    )


def _gate(ruling: Ruling) -> GateView:
    aims = ruling.aims
    return GateView(ruling.decision, ruling.reason, tuple(ruling.evidence()), aims.source, aims.good_stopped)


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s
