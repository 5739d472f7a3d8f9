"""The ticket of a lease: typed here, issued and checked once tenants exist (planned, see `docs/api.md`)."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """What the holder of a ticket may use before it must ask for a new lease."""

    requests: int
    escalations: int
    bytes: int


class Ticket(msgspec.Struct, frozen=True):
    """Signed with Ed25519 by the key `key_id`, short-lived (`expires_at_s`, unix time), checked off line.

    `aud` are the nodes and the cloud that may take it; `jti` makes it countable once.
    """

    jti: str
    key_id: str
    aud: tuple[str, ...]
    tenant: str
    model: str
    residency: tuple[str, ...]
    limits: Limits
    expires_at_s: float
