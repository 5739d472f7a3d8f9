"""What happens to a rollout, and what it orders. `at_s` is unix time."""

from __future__ import annotations

import msgspec

from contracts.messages import ModelReport
from contracts.risk.sequential import Decision


class Assigned(msgspec.Struct, frozen=True, tag=True):
    """The desired document that carries an order was issued under this sequence."""

    node: str
    sequence: int


class Heard(msgspec.Struct, frozen=True, tag=True):
    """A node reported of the document `sequence`; `report` is None when it does not have the model."""

    node: str
    sequence: int
    report: ModelReport | None
    at_s: float


class Seen(msgspec.Struct, frozen=True, tag=True):
    """A node came on line, or went."""

    node: str
    online: bool
    at_s: float


class Judged(msgspec.Struct, frozen=True, tag=True):
    """What the gate says now."""

    decision: Decision
    reason: str
    at_s: float


class Tick(msgspec.Struct, frozen=True, tag=True):
    """`listened_s` more have gone by with an ear for every node: time in which the controller was not running, or the
    broker away, is nobody's silence."""

    listened_s: float
    at_s: float


class Pause(msgspec.Struct, frozen=True, tag=True):
    at_s: float


class Resume(msgspec.Struct, frozen=True, tag=True):
    at_s: float


class Promote(msgspec.Struct, frozen=True, tag=True):
    """Somebody approves of the present stage."""

    at_s: float


class RollBack(msgspec.Struct, frozen=True, tag=True):
    """Somebody wants every exposed node on its previous bundle, under way or after the end."""

    reason: str
    at_s: float


class Retry(msgspec.Struct, frozen=True, tag=True):
    """Nodes that have failed are told once more, and a halted rollout goes on."""

    at_s: float


class Taken(msgspec.Struct, frozen=True, tag=True):
    """A later rollout has this node: what becomes of it is that one's matter."""

    node: str


Event = Assigned | Heard | Seen | Judged | Tick | Pause | Resume | Promote | RollBack | Retry | Taken


class Assign(msgspec.Struct, frozen=True):
    """The order: this node's next desired document names `digest` for the model, or nothing when it is ""."""

    node: str
    digest: str
