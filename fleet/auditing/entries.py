"""What the audit log holds: one entry for each thing that was done, each of one kind."""

from __future__ import annotations

from typing import Literal

import msgspec

from fleet.courses import Beginning, Standing
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
from fleet.rollouts.nodes import Node
from fleet.rollouts.plan import Plan

Happening = (
    Assigned | Heard | Seen | Judged | Tick | Pause | Resume | Promote | RollBack | Retry | Taken | Audited | Counted
)
Assignments = dict[str, dict[str, str]]
"""Node to logical model to the digest that it is to serve."""


class Kept(msgspec.Struct, frozen=True):
    """A rollout that was there before the log was."""

    plan: Plan
    standing: Standing
    nodes: dict[str, Node]


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The first entry: what there was when the log began."""

    assignments: Assignments
    rollouts: tuple[Kept, ...]


class Began(msgspec.Struct, frozen=True, tag="rollout began"):
    beginning: Beginning


class Happened(msgspec.Struct, frozen=True, tag="rollout"):
    """All that has changed a rollout since its last entry, in order. `Assigned` says which desired document carries an
    order; every other event comes from outside."""

    rollout: str
    events: tuple[Happening, ...]


class Withdrawn(msgspec.Struct, frozen=True, tag="model withdrawn"):
    """From one node, by its desired document `sequence`."""

    node: str
    model: str
    sequence: int


class Published(msgspec.Struct, frozen=True, tag="bundle published"):
    bundle: str
    model: str
    digest: str


class Measured(msgspec.Struct, frozen=True, tag="bundle measured"):
    """`sha256` of the measurements that were attached."""

    bundle: str
    digest: str
    sha256: str


class TokenIssued(msgspec.Struct, frozen=True, tag="token issued"):
    """With which `node` may join, once."""

    node: str
    region: str
    expires_at_s: float


class Enrolled(msgspec.Struct, frozen=True, tag="node enrolled"):
    """`key`: the id of the node's public key."""

    node: str
    region: str
    url: str
    reach: Literal["public", "site"]
    key: str
    sequence: int


class AcceptanceDemanded(msgspec.Struct, frozen=True, tag="acceptance demanded"):
    """`keys`: ids of those whose reports count."""

    target: str
    keys: tuple[str, ...]
    max_age_s: float


class AcceptanceLifted(msgspec.Struct, frozen=True, tag="acceptance lifted"):
    target: str


class BoardAccepted(msgspec.Struct, frozen=True, tag="board accepted"):
    """`report` is the digest of its file, `key` the id of who signed it."""

    report: str
    target: str
    node: str
    key: str


Body = (
    Opened
    | Began
    | Happened
    | Withdrawn
    | Published
    | Measured
    | TokenIssued
    | Enrolled
    | AcceptanceDemanded
    | AcceptanceLifted
    | BoardAccepted
)
