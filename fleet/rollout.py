"""A rollout as a state machine: a table of pure transitions, no clock and no network.

staging --all of the stage active--> [judging --gate accepts-->] next stage ... --last--> completed
staging, judging --failure, silence, gate rejects, abort--> reverting --all back, or deadline--> rolled-back

A gate that has accepted goes on counting, so that it can still reject while later stages roll.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from contracts.errors import FoothillError
from contracts.messages import ModelReport
from fleet import gates

Phase = Literal["staging", "judging", "reverting", "completed", "rolled-back"]
NodePhase = Literal["waiting", "assigned", "active", "failed", "reverting", "reverted"]
_PERCENT = re.compile(r"[0-9]{1,3}")
FINAL: frozenset[Phase] = frozenset(("completed", "rolled-back"))


class Gate(msgspec.Struct, frozen=True):
    """Stands after stage `stage` (counted from 0)."""

    stage: int
    terms: gates.Terms


class Plan(msgspec.Struct, frozen=True):
    """What was asked for. `stages` lists the nodes that each stage adds; `previous` what each node had ("" nothing).

    Every node of a stage must be active `deadline_s` after the stage began, and the gate must decide within
    `silence_s`.
    """

    id: str
    bundle: str
    model: str
    digest: str
    stages: tuple[tuple[str, ...], ...]
    previous: dict[str, str]
    deadline_s: float
    silence_s: float
    gate: Gate | None = None


class NodeState(msgspec.Struct, frozen=True):
    """Where one node is. `sequence`: the desired document that speaks of it, 0 before there is one."""

    phase: NodePhase = "waiting"
    sequence: int = 0
    error: str = ""


class Rollout(msgspec.Struct, frozen=True):
    """The whole state. Times of events are unix seconds.

    `waited_s`: how long the controller has listened since the present phase and stage began. Time in which it was not
    running, or the broker was away, is nobody's silence.
    """

    plan: Plan
    phase: Phase
    stage: int
    nodes: dict[str, NodeState]
    started_at_s: float
    waited_s: float = 0.0
    tally: gates.Tally = gates.Tally()
    reason: str = ""
    decided_at_s: float | None = None
    ended_at_s: float | None = None

    @property
    def exposed(self) -> tuple[str, ...]:
        """Every node that was ever told to take the new version."""
        return tuple(name for name, node in self.nodes.items() if node.phase != "waiting")

    @property
    def evidence(self) -> gates.Evidence | None:
        """Once it has accepted, the gate only rejects or says nothing new, so that "continue" is still "accept"."""
        if self.plan.gate is None:
            return None
        evidence = gates.judge(self.plan.gate.terms, self.tally)
        accepted = self.stage > self.plan.gate.stage and evidence.decision == "continue"
        return msgspec.structs.replace(evidence, decision="accept") if accepted else evidence


class Assigned(msgspec.Struct, frozen=True):
    """The desired document that carries a command was issued under this sequence."""

    node: str
    sequence: int


class Heard(msgspec.Struct, frozen=True):
    """A node reported of the document `sequence`; `report` is None when it does not have the model."""

    node: str
    sequence: int
    report: ModelReport | None
    at_s: float


class Audited(msgspec.Struct, frozen=True):
    """An audit of the new version on one node."""

    node: str
    agree: bool
    at_s: float


class Tick(msgspec.Struct, frozen=True):
    """`listened_s` more have gone by with an ear for every node."""

    listened_s: float
    at_s: float


class Abort(msgspec.Struct, frozen=True):
    reason: str
    at_s: float


Event = Assigned | Heard | Audited | Tick | Abort


class Assign(msgspec.Struct, frozen=True):
    """The command: this node's next desired document names `digest` for the model, or nothing when it is ""."""

    node: str
    digest: str


Step = tuple[Rollout, tuple[Assign, ...]]


def begin(plan: Plan, at_s: float) -> Step:
    """Exposes the first stage."""
    nodes = {name: NodeState() for stage in plan.stages for name in stage}
    return _expose(Rollout(plan, "staging", 0, nodes, started_at_s=at_s), 0)


def advance(state: Rollout, event: Event) -> Step:
    """The next state and what must now be told to nodes. An event that means nothing here changes nothing."""
    handler = _TABLE.get((state.phase, type(event)))
    return (state, ()) if handler is None else handler(state, event)


def plan_stages(nodes: Sequence[str], stages: Sequence[int | str]) -> tuple[tuple[str, ...], ...]:
    """Cuts nodes into stages. Each entry is how many nodes have the new version after it: a count or a percentage.

    The last stage always covers all nodes. Raises FoothillError `bad_request` for anything out of form.
    """
    reached, cut = 0, []
    for wanted in (*stages, "100%"):
        end = min(len(nodes), _count(wanted, len(nodes)))
        if end > reached:
            cut.append(tuple(nodes[reached:end]))
            reached = end
    return tuple(cut)


def _count(wanted: int | str, total: int) -> int:
    share = wanted.removesuffix("%") if isinstance(wanted, str) else ""
    if isinstance(wanted, str) and wanted.endswith("%") and _PERCENT.fullmatch(share) and 1 <= int(share) <= 100:
        return math.ceil(total * int(share) / 100)
    if isinstance(wanted, int) and wanted >= 1:
        return wanted
    raise FoothillError("bad_request", f'Stage {wanted!r} is neither a number of nodes nor a percentage like "25%".')


def _heard_staging(state: Rollout, event: Heard) -> Step:
    outcome = _outcome(state, event)
    if outcome is None:
        return state, ()
    if outcome.phase == "failed":
        return _stop(_with_node(state, event.node, outcome), event.at_s, f"{event.node} failed: {outcome.error}")
    state = _with_node(state, event.node, outcome)
    if any(node.phase == "assigned" for node in state.nodes.values()):
        return state, ()
    gate = state.plan.gate
    if gate is not None and gate.stage == state.stage and _decision(state) != "accept":
        return msgspec.structs.replace(state, phase="judging", waited_s=0.0), ()
    return _next_stage(state, event.at_s)


def _heard_judging(state: Rollout, event: Heard) -> Step:
    outcome = _outcome(state, event)
    if outcome is not None and outcome.phase == "failed":
        return _stop(_with_node(state, event.node, outcome), event.at_s, f"{event.node} failed: {outcome.error}")
    return state, ()


def _heard_back(state: Rollout, event: Heard) -> Step:
    """A node tells that it has its previous version again; the last one to do so ends the roll back."""
    node = state.nodes.get(event.node)
    if node is None or node.phase != "reverting" or not _is_current(node, event):
        return state, ()
    if not _has(event.report, state.plan.previous[event.node]):
        return state, ()
    state = _with_node(state, event.node, msgspec.structs.replace(node, phase="reverted"))
    if state.phase == "reverting" and all(other.phase != "reverting" for other in state.nodes.values()):
        return msgspec.structs.replace(state, phase="rolled-back", ended_at_s=event.at_s), ()
    return state, ()


def _audited(state: Rollout, event: Audited) -> Step:
    """Counts for the gate, in later stages too: the same test goes on over all exposed nodes.

    The test's alpha holds for every stopping time, so that listening on costs no good version more than it allows.
    """
    gate, node = state.plan.gate, state.nodes.get(event.node)
    if gate is None or state.stage < gate.stage or node is None or node.phase != "active":
        return state, ()
    if state.stage == gate.stage and _decision(state) != "continue":
        return state, ()
    state = msgspec.structs.replace(state, tally=state.tally.counted(event.agree))
    decision = _decision(state)
    if decision == "reject":
        return _stop(state, event.at_s, _why_rejected(gates.judge(gate.terms, state.tally)))
    if decision == "accept" and state.phase == "judging":
        return _next_stage(state, event.at_s)
    return state, ()


def _tick_staging(state: Rollout, event: Tick) -> Step:
    state = _waited(state, event)
    if state.waited_s < state.plan.deadline_s:
        return state, ()
    silent = ", ".join(name for name, node in state.nodes.items() if node.phase == "assigned")
    return _stop(state, event.at_s, f"silence: {silent} did not become active in {state.plan.deadline_s:g} s")


def _tick_judging(state: Rollout, event: Tick) -> Step:
    state = _waited(state, event)
    if state.waited_s < state.plan.silence_s:
        return state, ()
    seen = f"{state.tally.disagreements} disagreements in {state.tally.n} audits decide nothing"
    return _stop(state, event.at_s, f"silence: {seen} after {state.plan.silence_s:g} s")


def _tick_reverting(state: Rollout, event: Tick) -> Step:
    """Nodes that do not answer keep their new desired document and take it when they come back."""
    state = _waited(state, event)
    if state.waited_s < state.plan.deadline_s:
        return state, ()
    missing = ", ".join(name for name, node in state.nodes.items() if node.phase == "reverting")
    reason = f"{state.reason}; not yet confirmed by {missing}"
    return msgspec.structs.replace(state, phase="rolled-back", ended_at_s=event.at_s, reason=reason), ()


def _abort(state: Rollout, event: Abort) -> Step:
    return _stop(state, event.at_s, f"aborted: {event.reason}")


def _assigned(state: Rollout, event: Assigned) -> Step:
    node = state.nodes.get(event.node)
    if node is None or event.sequence <= node.sequence:
        return state, ()
    return _with_node(state, event.node, msgspec.structs.replace(node, sequence=event.sequence)), ()


_TABLE: dict[tuple[Phase, type], Callable[[Rollout, Any], Step]] = {
    ("staging", Assigned): _assigned,
    ("staging", Heard): _heard_staging,
    ("staging", Audited): _audited,
    ("staging", Tick): _tick_staging,
    ("staging", Abort): _abort,
    ("judging", Assigned): _assigned,
    ("judging", Heard): _heard_judging,
    ("judging", Audited): _audited,
    ("judging", Tick): _tick_judging,
    ("judging", Abort): _abort,
    ("reverting", Assigned): _assigned,
    ("reverting", Heard): _heard_back,
    ("reverting", Tick): _tick_reverting,
    ("rolled-back", Heard): _heard_back,
}


def _expose(state: Rollout, stage: int) -> Step:
    added = state.plan.stages[stage]
    nodes = state.nodes | {name: NodeState("assigned") for name in added}
    state = msgspec.structs.replace(state, phase="staging", stage=stage, nodes=nodes, waited_s=0.0)
    return state, tuple(Assign(name, state.plan.digest) for name in added)


def _next_stage(state: Rollout, at_s: float) -> Step:
    if state.stage + 1 < len(state.plan.stages):
        return _expose(state, state.stage + 1)
    done = msgspec.structs.replace(state, phase="completed", decided_at_s=at_s, ended_at_s=at_s)
    return done, ()


def _stop(state: Rollout, at_s: float, reason: str) -> Step:
    """Every exposed node gets its previous version back, whatever it says of itself.

    Its sequence starts over at 0, so that nothing it reports counts before the new document is out.
    """
    back = {name: NodeState("reverting", error=state.nodes[name].error) for name in state.exposed}
    commands = tuple(Assign(name, state.plan.previous[name]) for name in back)
    return (
        msgspec.structs.replace(
            state, phase="reverting", nodes=state.nodes | back, waited_s=0.0, decided_at_s=at_s, reason=reason
        ),
        commands,
    )


def _outcome(state: Rollout, event: Heard) -> NodeState | None:
    """What a report makes of an exposed node; None when it says nothing new of this document."""
    node, report = state.nodes.get(event.node), event.report
    if node is None or report is None or node.phase not in ("assigned", "active"):
        return None
    if not _is_current(node, event) or report.digest != state.plan.digest:
        return None
    if report.phase in ("failed", "reverted"):
        return msgspec.structs.replace(node, phase="failed", error=report.error or f"it reports {report.phase}")
    if report.phase == "unloaded" and node.phase == "assigned":
        return msgspec.structs.replace(node, phase="failed", error="an operator has unloaded it on the node")
    if report.phase == "active" and node.phase == "assigned":
        return msgspec.structs.replace(node, phase="active")
    return None


def _has(report: ModelReport | None, digest: str) -> bool:
    """Whether a node serves `digest` again, or would if an operator let it; for "" whether it has the model no more."""
    if report is None or not digest:
        return report is None and not digest
    return report.serving == digest or (report.digest == digest and report.phase in ("active", "unloaded"))


def _is_current(node: NodeState, event: Heard) -> bool:
    return 0 < node.sequence <= event.sequence


def _decision(state: Rollout) -> str:
    evidence = state.evidence
    return "accept" if evidence is None else evidence.decision


def _waited(state: Rollout, event: Tick) -> Rollout:
    return msgspec.structs.replace(state, waited_s=state.waited_s + event.listened_s)


def _with_node(state: Rollout, name: str, node: NodeState) -> Rollout:
    return msgspec.structs.replace(state, nodes=state.nodes | {name: node})


def _why_rejected(evidence: gates.Evidence) -> str:
    return (
        f"gate: {evidence.disagreements} of {evidence.n} audited answers differ from the cloud's; the old version's "
        f"rate is at most {evidence.p0:.1%} and {evidence.p1:.1%} counts as bad (log likelihood ratio "
        f"{evidence.llr:.2f}; a version as good as the old one is stopped in at most {evidence.good_stopped:.1%} of "
        "rollouts)"
    )
