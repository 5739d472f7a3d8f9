"""Rollouts as they were kept before nodes had rows of their own: brought up to date once, when their database is."""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.risk.sequential import Decision
from fleet.courses import Course
from fleet.judging.aims import Aims, Tally, Terms
from fleet.judging.ruling import Ruling
from fleet.rollouts.nodes import Node, NodePhase
from fleet.rollouts.plan import Gate, Plan, Policy
from fleet.rollouts.rollout import Head, Rollout

_PHASES: dict[str, NodePhase] = {
    "waiting": "planned",
    "assigned": "assigned",
    "active": "healthy",
    "failed": "failed",
    "reverting": "reverting",
    "reverted": "reverted",
}


def split(body: bytes) -> tuple[bytes, bytes]:
    """A course that was kept with its plan in one piece: the plan, and the rest."""
    old: dict[str, Any] = msgspec.msgpack.decode(body)
    standing = {"head": old["head"], "ruling": old["ruling"]}
    return msgspec.msgpack.encode(old["plan"]), msgspec.msgpack.encode(standing)


def course_of(body: bytes) -> Course:
    """Of nodes it was not kept whether they were on line: they say so again."""
    old: dict[str, Any] = msgspec.msgpack.decode(body)
    planned, gate = old["plan"], old["plan"]["gate"]
    plan = Plan(
        id=planned["id"],
        bundle=planned["bundle"],
        model=planned["model"],
        digest=planned["digest"],
        stages=tuple(map(tuple, planned["stages"])),
        previous=planned["previous"],
        policy=Policy(healthy_deadline_s=planned["deadline_s"]),
        gate=None if gate is None else Gate(gate["stage"], planned["silence_s"]),
    )
    head = Head(
        phase=old["phase"],
        started_at_s=old["started_at_s"],
        stage=old["stage"],
        listened_s=old["waited_s"],
        reason=old["reason"],
        decided_at_s=old["decided_at_s"],
        ended_at_s=old["ended_at_s"],
    )
    if gate is not None and (head.stage > gate["stage"] or head.phase == "completed"):
        head.decision = "accept"
    nodes = {
        name: Node(_PHASES[node["phase"]], online=True, sequence=node["sequence"], error=node["error"])
        for name, node in old["nodes"].items()
    }
    rollout = Rollout(plan, head, nodes)
    rollout.changed |= nodes.keys()
    return Course(rollout, _ruling(gate["terms"], old["tally"], head.decision) if gate is not None else None)


def _ruling(terms: dict[str, Any], tally: dict[str, int], decision: Decision) -> Ruling:
    """Audits were all that counted."""
    baseline = terms["baseline"]
    judged = Terms(
        p0=terms["p0"],
        p1=terms["p1"],
        alpha=terms["alpha"],
        beta=terms["beta"],
        baseline=Tally(baseline["n"], baseline["disagreements"]),
    )
    good_stopped = terms["alpha"] + terms.get("baseline_delta", 0.0)
    aims = Aims({"disagreeing": judged}, slow_edge=0, source=terms["source"], good_stopped=good_stopped)
    ruling = Ruling(aims, said={"disagreeing": decision} if decision == "accept" else {})
    return ruling.audited(Tally(tally["n"], tally["disagreements"]))
