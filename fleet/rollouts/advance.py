"""What an event makes of a rollout: one table, the same answer to the same events, no clock and no network.

staging --all of the stage healthy--> judging --gate, bake, approval--> staging the next stage … --last--> completed
staging, judging --failures, silence, gate rejects, somebody--> reverting --all back, or deadline--> rolled-back
                 --the same, without auto_revert--> halted --retry--> staging, or --somebody--> reverting

Nodes that were off line when their stage came neither hold it up nor count for it. When they come back they are told
at once, after the end too, and straight to the newest version.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Any

from contracts.messages import ModelReport
from fleet.rollouts.events import (
    Assign,
    Assigned,
    Event,
    Heard,
    Judged,
    Pause,
    Promote,
    Resume,
    Retry,
    RollBack,
    Seen,
    Taken,
    Tick,
)
from fleet.rollouts.nodes import EXPOSED, IN_WORK, Node
from fleet.rollouts.plan import Plan
from fleet.rollouts.rollout import Head, Phase, Rollout

Orders = list[Assign]
_NAMED = 8
"""Of nodes that a reason names; more are counted."""


def begin(plan: Plan, online: Collection[str], at_s: float) -> tuple[Rollout, Orders]:
    """Exposes the first stage."""
    nodes = {name: Node(online=name in online) for stage in plan.stages for name in stage}
    rollout = Rollout(plan, Head("staging", started_at_s=at_s), nodes)
    rollout.changed |= nodes.keys()
    _enter(rollout, 0)
    return rollout, _go_on(rollout, at_s, looking=True)


def advance(rollout: Rollout, event: Event) -> Orders:
    """Changes `rollout`, and says what nodes must now be told. An event that means nothing here changes nothing."""
    handler = TABLE.get((rollout.head.phase, type(event)))
    return [] if handler is None else handler(rollout, event)


def _heard(rollout: Rollout, event: Heard) -> Orders:
    node = rollout.nodes.get(event.node)
    if node is None or not 0 < node.sequence <= event.sequence:
        return []
    if node.phase == "reverting":
        return _heard_back(rollout, event)
    if event.report is None or event.report.digest != rollout.plan.digest:
        return []
    error = _broken(event.report, node)
    if error:
        return _fail(rollout, event.node, error, event.at_s)
    if event.report.phase == "active" and rollout.move(event.node, "active"):
        node.active_s = rollout.head.listened_s
        _settle(rollout, event.node)
        return _go_on(rollout, event.at_s)
    return []


def _heard_late(rollout: Rollout, event: Heard) -> Orders:
    """After the end: of nodes that have come back since. What has become of the others is no matter of this rollout."""
    node = rollout.nodes.get(event.node)
    return _heard(rollout, event) if node is not None and node.phase != "healthy" else []


def _heard_back(rollout: Rollout, event: Heard) -> Orders:
    """A node tells that it has its previous version again; the last one to do so ends the roll back."""
    node = rollout.nodes.get(event.node)
    if node is None or node.phase != "reverting" or not 0 < node.sequence <= event.sequence:
        return []
    if _has(event.report, rollout.plan.previous[event.node]):
        rollout.move(event.node, "restored")
        if rollout.head.phase == "reverting":
            _end_reverting(rollout, event.at_s)
    return []


def _seen(rollout: Rollout, event: Seen) -> Orders:
    node = rollout.nodes.get(event.node)
    if node is None or node.online == event.online:
        return []
    node.online = event.online
    rollout.touch(event.node)
    rollout.move(event.node, "back" if event.online else "gone")
    return _go_on(rollout, event.at_s)


def _judged(rollout: Rollout, event: Judged) -> Orders:
    """What the gate has accepted it may still reject, while later stages roll: its alpha holds for every stopping
    time. "continue" takes nothing back."""
    head = rollout.head
    head.why = event.reason
    if event.decision == "continue" or (event.decision == "accept" and head.decision != "continue"):
        return []
    head.decision = event.decision
    if event.decision == "reject":
        return _stop(rollout, event.at_s, f"gate: {event.reason}")
    return _go_on(rollout, event.at_s)


def _tick(rollout: Rollout, event: Tick) -> Orders:
    head = rollout.head
    head.listened_s += event.listened_s
    if head.paused:
        head.since_s += event.listened_s
    orders = _tick_nodes(rollout, event.at_s)
    if head.phase in ("staging", "judging") and not head.paused:
        reason = _silence(rollout)
        if reason:
            return orders + _stop(rollout, event.at_s, reason)
    return orders + _go_on(rollout, event.at_s, looking=True)


def _tick_nodes(rollout: Rollout, at_s: float) -> Orders:
    """Those in work: some have served for long enough, some for too long not."""
    orders: Orders = []
    deadline_s, phase = rollout.plan.policy.healthy_deadline_s, rollout.head.phase
    for name in [*rollout.names(*IN_WORK)]:
        if not _settle(rollout, name) and rollout.head.listened_s - rollout.nodes[name].told_s >= deadline_s:
            orders += _fail(rollout, name, f"it was not healthy {deadline_s:g} s after it was told", at_s)
            if rollout.head.phase != phase:
                break
    return orders


def _tick_reverting(rollout: Rollout, event: Tick) -> Orders:
    """Nodes that do not answer keep their new desired document and take it when they come back."""
    head = rollout.head
    head.listened_s += event.listened_s
    if head.listened_s - head.since_s >= rollout.plan.policy.healthy_deadline_s:
        head.reason += f"; not yet confirmed by {_some([*rollout.names('reverting')])}"
        head.phase, head.ended_at_s = "rolled-back", event.at_s
    return []


def _pause(rollout: Rollout, event: Pause) -> Orders:
    """Nobody new is told; those in work go on, and may still fail."""
    rollout.head.paused = True
    return []


def _resume(rollout: Rollout, event: Resume) -> Orders:
    rollout.head.paused = False
    return _go_on(rollout, event.at_s, looking=True)


def _promote(rollout: Rollout, event: Promote) -> Orders:
    rollout.head.promoted = True
    return _go_on(rollout, event.at_s)


def _retry(rollout: Rollout, event: Retry) -> Orders:
    for name in rollout.failed:
        if rollout.move(name, "again"):
            rollout.mark(name, "")
            if not rollout.nodes[name].online:
                rollout.move(name, "gone")
    if rollout.head.phase == "halted":
        head = rollout.head
        head.phase, head.since_s, head.reason, head.decided_at_s = "staging", head.listened_s, "", None
        head.decision, head.why = "continue", ""
    return _go_on(rollout, event.at_s, looking=True)


def _roll_back(rollout: Rollout, event: RollBack) -> Orders:
    return _revert(rollout, event.at_s, event.reason)


def _assigned(rollout: Rollout, event: Assigned) -> Orders:
    node = rollout.nodes.get(event.node)
    if node is not None and event.sequence > node.sequence:
        node.sequence = event.sequence
        rollout.touch(event.node)
    return []


def _taken(rollout: Rollout, event: Taken) -> Orders:
    if event.node in rollout.nodes:
        rollout.move(event.node, "taken")
    return []


TABLE: dict[tuple[Phase, type], Callable[[Rollout, Any], Orders]] = {
    ("staging", Assigned): _assigned,
    ("staging", Heard): _heard,
    ("staging", Seen): _seen,
    ("staging", Judged): _judged,
    ("staging", Tick): _tick,
    ("staging", Pause): _pause,
    ("staging", Resume): _resume,
    ("staging", Promote): _promote,
    ("staging", Retry): _retry,
    ("staging", RollBack): _roll_back,
    ("judging", Assigned): _assigned,
    ("judging", Heard): _heard,
    ("judging", Seen): _seen,
    ("judging", Judged): _judged,
    ("judging", Tick): _tick,
    ("judging", Pause): _pause,
    ("judging", Resume): _resume,
    ("judging", Promote): _promote,
    ("judging", Retry): _retry,
    ("judging", RollBack): _roll_back,
    ("halted", Assigned): _assigned,
    ("halted", Heard): _heard,
    ("halted", Seen): _seen,
    ("halted", Tick): _tick,
    ("halted", Retry): _retry,
    ("halted", RollBack): _roll_back,
    ("reverting", Assigned): _assigned,
    ("reverting", Heard): _heard_back,
    ("reverting", Seen): _seen,
    ("reverting", Tick): _tick_reverting,
    ("completed", Assigned): _assigned,
    ("completed", Heard): _heard_late,
    ("completed", Seen): _seen,
    ("completed", Tick): _tick,
    ("completed", RollBack): _roll_back,
    ("completed", Taken): _taken,
    ("rolled-back", Assigned): _assigned,
    ("rolled-back", Heard): _heard_back,
    ("rolled-back", Taken): _taken,
}


def _go_on(rollout: Rollout, at_s: float, *, looking: bool = False) -> Orders:
    """As far as it can go now. `looking`: at windows too, which takes a look at every node that waits."""
    head, orders = rollout.head, Orders()
    while not head.paused and head.phase in ("staging", "judging", "completed"):
        if looking or not rollout.plan.windows:
            orders += _expose(rollout, at_s)
        if head.phase == "staging" and rollout.count("healthy") and not rollout.count("waiting", *IN_WORK):
            head.phase, head.since_s = "judging", head.listened_s
        if head.phase != "judging" or rollout.in_work or rollout.holds:
            break
        if head.stage + 1 == len(rollout.plan.stages):
            head.phase, head.decided_at_s, head.ended_at_s = "completed", at_s, at_s
            break
        _enter(rollout, head.stage + 1)
    return orders


def _enter(rollout: Rollout, stage: int) -> None:
    head = rollout.head
    head.phase, head.stage, head.since_s, head.promoted = "staging", stage, head.listened_s, False
    for name in rollout.plan.stages[stage]:
        rollout.move(name, "due")
        if not rollout.nodes[name].online:
            rollout.move(name, "gone")


def _expose(rollout: Rollout, at_s: float) -> Orders:
    most, windows = rollout.plan.policy.max_parallel, rollout.plan.windows
    room = most - rollout.in_work if most else rollout.count("waiting")
    may = (name for name in rollout.names("waiting") if name not in windows or windows[name].is_open(at_s))
    chosen = [*itertools.islice(may, max(0, room))]
    for name in chosen:
        rollout.move(name, "told")
        node = rollout.nodes[name]
        node.sequence, node.told_s = 0, rollout.head.listened_s
    return [Assign(name, rollout.plan.digest) for name in chosen]


def _settle(rollout: Rollout, name: str) -> bool:
    """Whether it is healthy now."""
    node, policy = rollout.nodes[name], rollout.plan.policy
    steady = node.phase == "settling" and rollout.head.listened_s - node.active_s >= policy.min_healthy_s
    return steady and rollout.move(name, "steady")


def _fail(rollout: Rollout, name: str, error: str, at_s: float) -> Orders:
    """One more than may fail stops all; else that node alone goes back."""
    if not rollout.move(name, "broken"):
        return []
    rollout.mark(name, error)
    under_way = rollout.head.phase in ("staging", "judging")
    if under_way and rollout.failures > rollout.plan.policy.max_failed:
        return _stop(rollout, at_s, f"{name} failed: {error}")
    if not rollout.plan.policy.auto_revert:
        return []
    return [_send_back(rollout, name), *_go_on(rollout, at_s)]


def _stop(rollout: Rollout, at_s: float, reason: str) -> Orders:
    if rollout.plan.policy.auto_revert:
        return _revert(rollout, at_s, reason)
    head = rollout.head
    head.phase, head.paused, head.since_s = "halted", False, head.listened_s
    head.decided_at_s, head.reason = at_s, reason
    return []


def _revert(rollout: Rollout, at_s: float, reason: str) -> Orders:
    """Every exposed node gets its previous version back, whatever it says of itself."""
    head = rollout.head
    head.phase, head.paused, head.since_s = "reverting", False, head.listened_s
    head.decided_at_s, head.ended_at_s, head.reason = at_s, None, reason
    orders = [_send_back(rollout, name) for name in [*rollout.names(*EXPOSED)]]
    _end_reverting(rollout, at_s)
    return orders


def _send_back(rollout: Rollout, name: str) -> Assign:
    """Its sequence starts over at 0, so that nothing it reports counts before the new document is out."""
    rollout.move(name, "stop")
    rollout.nodes[name].sequence = 0
    return Assign(name, rollout.plan.previous[name])


def _end_reverting(rollout: Rollout, at_s: float) -> None:
    if not rollout.count("reverting"):
        rollout.head.phase, rollout.head.ended_at_s = "rolled-back", at_s


def _silence(rollout: Rollout) -> str:
    """Who has said nothing for too long; "" for nobody."""
    head, policy, gate = rollout.head, rollout.plan.policy, rollout.plan.gate
    waited_s = head.listened_s - head.since_s
    if head.phase == "staging":
        nobody = not rollout.count("healthy", "waiting", *IN_WORK)
        if nobody and waited_s >= policy.healthy_deadline_s:
            return f"silence: no node was healthy {policy.healthy_deadline_s:g} s after stage {head.stage + 1} began"
    elif gate is not None and "gate" in rollout.holds and waited_s >= gate.silence_s:
        return f"silence: the gate has decided nothing after {gate.silence_s:g} s: {head.why or 'it has seen nothing'}"
    return ""


def _broken(report: ModelReport, node: Node) -> str:
    """Why a node that should have the new version does not; "" for no reason."""
    if report.phase in ("failed", "reverted"):
        return report.error or f"it reports {report.phase}"
    if report.phase == "unloaded" and node.phase in IN_WORK:
        return "an operator has unloaded it on the node"
    return ""


def _has(report: ModelReport | None, digest: str) -> bool:
    """Whether a node serves `digest` again, or would if an operator let it; for "" whether it has the model no more."""
    if report is None or not digest:
        return report is None and not digest
    return report.serving == digest or (report.digest == digest and report.phase in ("active", "unloaded"))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
