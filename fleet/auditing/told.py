"""Entries of the audit log in words, a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from fleet.auditing.entries import (
    AcceptanceDemanded,
    AcceptanceLifted,
    Began,
    BoardAccepted,
    Body,
    Enrolled,
    Happened,
    Happening,
    Measured,
    Opened,
    Published,
    TokenIssued,
    Withdrawn,
)
from fleet.judging.evident import Audited, Counted
from fleet.rollouts.events import (
    Assigned,
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

_NAMED = 3


def told(body: Body) -> str:
    words: Callable[[Any], str] = _WORDS[type(body)]
    return words(body)


def subject(body: Body) -> str:
    """The rollout, node, bundle or target that an entry is of; "" for all."""
    return next((str(value) for value in (_named(body), getattr(body, "rollout", "")) if value), "")


def nodes_of(body: Body) -> set[str]:
    """Every node that an entry names."""
    if isinstance(body, Began):
        return {*body.beginning.plan.previous}
    events = body.events if isinstance(body, Happened) else (body,)
    return {node for node in (getattr(one, "node", "") for one in events) if isinstance(node, str) and node}


def moment(at_s: float) -> str:
    """UTC."""
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _named(body: Body) -> str:
    if isinstance(body, Began):
        return body.beginning.plan.id
    return next((str(getattr(body, name)) for name in ("node", "bundle", "target") if getattr(body, name, "")), "")


def _opened(body: Opened) -> str:
    return f"the log begins: {len(body.assignments)} nodes had models, {len(body.rollouts)} rollouts were known"


def _began(body: Began) -> str:
    plan, online = body.beginning.plan, len(body.beginning.online)
    gate = "" if plan.gate is None else f", judged from stage {plan.gate.stage + 1} on"
    return f"{plan.bundle} to {len(plan.previous)} nodes ({online} on line) in {len(plan.stages)} stages{gate}"


def _happened(body: Happened) -> str:
    counts = Counter(_EVENTS[type(event)] for event in body.events)
    return "; ".join(_happening(kind, count, body.events) for kind, count in counts.items())


def _happening(kind: str, count: int, events: tuple[Happening, ...]) -> str:
    of_kind = [event for event in events if _EVENTS[type(event)] == kind]
    names = list(dict.fromkeys(event.node for event in of_kind if hasattr(event, "node")))
    if not names:
        reasons = [event.reason for event in of_kind if isinstance(event, RollBack)]
        return ": ".join([kind, *reasons])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    times = f" ({count} times)" if count > len(names) else ""
    return f"{kind}: {', '.join(names[:_NAMED])}{more}{times}"


_EVENTS: dict[type, str] = {
    Assigned: "told",
    Heard: "reported",
    Seen: "came or went",
    Judged: "judged",
    Tick: "time went by",
    Pause: "paused",
    Resume: "resumed",
    Promote: "promoted",
    RollBack: "sent back",
    Retry: "tried again",
    Taken: "taken over by a later rollout",
    Audited: "audited",
    Counted: "counts booked",
}

_WORDS: dict[type, Callable[[Any], str]] = {
    Opened: _opened,
    Began: _began,
    Happened: _happened,
    Withdrawn: lambda body: f"{body.model} is taken off it, by document {body.sequence}",
    Published: lambda body: f"serves {body.model}, {body.digest}",
    Measured: lambda body: f"measurements {body.sha256[:16]}",
    TokenIssued: lambda body: f"may join in {body.region} until {moment(body.expires_at_s)}",
    Enrolled: lambda body: f"joined in {body.region} as {body.url} ({body.reach}), key {body.key}",
    AcceptanceDemanded: lambda body: f"reports demanded, by keys {', '.join(body.keys)}",
    AcceptanceLifted: lambda _: "no report is demanded any more",
    BoardAccepted: lambda body: f"{body.node} passed, report {body.report[:19]} by key {body.key}",
}
