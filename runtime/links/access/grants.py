"""What one caller may do here: who it is, where its requests may be worked on, and how much of it is left."""

from __future__ import annotations

import msgspec
from aiohttp import web

from contracts.errors import FoothillError
from contracts.headers import Priority, Terms, lower
from contracts.tickets import Limits


class Usage:
    """How much of a ticket's limits was used at this server. Counts before anything is awaited."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.escalations = 0
        self.bytes = 0

    def count_request(self) -> None:
        """Raises FoothillError `rate_limited` when none is left."""
        if 0 < self._limits.requests <= self.requests:
            raise _used_up(f"{self._limits.requests} requests")
        self.requests += 1

    def count_body(self, length: int) -> None:
        """`length` in bytes. Raises FoothillError `rate_limited` for what would go beyond."""
        if 0 < self._limits.bytes < self.bytes + length:
            raise _used_up(f"{self._limits.bytes} bytes")
        self.bytes += length

    def count_cloud_request(self) -> None:
        """One that its caller took to the cloud itself. Raises FoothillError `rate_limited` when none is left."""
        if not self.take_escalation():
            raise _used_up(f"{self._limits.escalations} escalations")

    def take_escalation(self) -> bool:
        """False when none is left."""
        if 0 < self._limits.escalations <= self.escalations:
            return False
        self.escalations += 1
        return True


class Allowance(msgspec.Struct, frozen=True):
    """What a tenant may cost through one router; 0 sets no limit. Costs are in the operator's own unit."""

    escalations_per_s: float = 0.0
    escalations_per_day: int = 0
    cost_per_day: float = 0.0

    @property
    def limited(self) -> bool:
        return self != UNLIMITED


UNLIMITED = Allowance()


class Grant(msgspec.Struct, frozen=True):
    """`tenant` "" is nobody in particular; `models` empty are all, `residency` empty is no claim; without `usage`
    nothing is counted. `allowance` and `priority` are for a router, which escalates, and finds room, for many."""

    tenant: str = ""
    models: tuple[str, ...] = ()
    residency: tuple[str, ...] = ()
    usage: Usage | None = None
    allowance: Allowance = UNLIMITED
    priority: Priority = "high"

    def check_model(self, model: str) -> None:
        """Raises FoothillError `forbidden` for a model that the caller may not ask about."""
        if self.models and model not in self.models:
            raise FoothillError(
                "forbidden", f"Your token is for {', '.join(self.models)}, not for {model[:80]}. Ask its issuer."
            )

    def narrow(self, terms: Terms) -> Terms:
        """The request's terms within the grant. Raises FoothillError `residency_denied` where they have no region."""
        if self.priority != "high":
            terms = msgspec.structs.replace(terms, priority=lower(self.priority, terms.priority))
        if not self.residency:
            return terms
        both = tuple(region for region in terms.residency if region in self.residency)
        if terms.residency and not both:
            raise FoothillError(
                "residency_denied",
                f"Foothill-Residency names {', '.join(terms.residency)}, but your token or ticket keeps requests in "
                f"{', '.join(self.residency)}. Ask for one of these.",
            )
        return msgspec.structs.replace(terms, residency=both or self.residency)

    def count_body(self, length: int) -> None:
        if self.usage is not None:
            self.usage.count_body(length)

    def take_escalation(self) -> bool:
        return self.usage is None or self.usage.take_escalation()


ANYBODY = Grant()
GRANT = web.RequestKey("grant", Grant)


def grant_of(request: web.Request) -> Grant:
    """What the caller was granted; everything where nobody is asked."""
    grant: Grant = request.get(GRANT, ANYBODY)
    return grant


def _used_up(what: str) -> FoothillError:
    return FoothillError(
        "rate_limited",
        f"The ticket's {what} at this server are used up: ask for a new lease, POST /v1/route.",
        retry_after_s=1.0,
    )
