"""The ticket that goes with a lease, so that its servers know whom the router has sent."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from contracts.headers import Terms
from contracts.leases import Lease
from contracts.tickets import CLOUD_AUDIENCE, Limits, Ticket
from runtime.links.access.tickets import sign


class Tickets:
    """Signs with `private` (32 bytes), a key that the fleet names for tickets. `wall` gives unix time."""

    def __init__(self, private: bytes, *, ttl_s: float, limits: Limits, wall: Callable[[], float]) -> None:
        self._private = private
        self._ttl_s = ttl_s
        self._limits = limits
        self._wall = wall

    def attach(self, lease: Lease, terms: Terms, *, tenant: str) -> Lease:
        """The lease with a ticket for exactly its servers, its model and the residency it was asked under."""
        now_s = self._wall()
        ticket = Ticket(
            jti=secrets.token_hex(16),
            aud=(*(node.node for node in lease.nodes), *((CLOUD_AUDIENCE,) if lease.cloud else ())),
            tenant=tenant,
            model=lease.model,
            residency=terms.residency,
            limits=self._limits,
            issued_at_s=now_s,
            expires_at_s=now_s + max(self._ttl_s, lease.ttl_s),
        )
        return msgspec.structs.replace(lease, ticket=sign(ticket, self._private))
