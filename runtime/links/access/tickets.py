"""Tickets signed by a router, and taken by a server that remembers what it has verified."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from contracts import tickets
from contracts.errors import FoothillError
from contracts.messages import Signed
from contracts.tickets import Sealed, Ticket
from runtime.links.access.grants import Grant, Usage
from runtime.links.access.ticket_keys import TicketKeys
from runtime.links.trust import signatures

MAX_REMEMBERED = 8_192


def sign(ticket: Ticket, private: bytes) -> str:
    """The compact ticket, signed with a router's key (32 bytes)."""
    signed = signatures.sign(ticket, private)
    return tickets.compact(Sealed(signed.key_id, signed.payload, signed.signature))


def verify(sealed: Sealed, public_hex: str) -> Ticket:
    """Raises FoothillError `unauthorized` for one that the key did not sign."""
    signed = Signed(sealed.payload, sealed.key_id, sealed.signature)
    try:
        return signatures.verify(signed, {sealed.key_id: public_hex}, Ticket)
    except FoothillError as error:
        raise FoothillError(
            "unauthorized", f"The ticket is refused: {error.message} Ask for a new lease, POST /v1/route."
        ) from error


class _Held(NamedTuple):
    key_id: str
    ticket: Ticket
    grant: Grant


class TicketBook:
    """Which tickets let a caller pass at the server `audience`. `wall` gives unix time.

    A ticket's signature is verified once, and then remembered with what was used of it: the 8,192 that were used last.
    One that is forgotten would count from 0 again. Tickets of a key that the fleet takes back are refused again.
    """

    def __init__(
        self, keys: TicketKeys, audience: str, wall: Callable[[], float], *, most: int = MAX_REMEMBERED
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._wall = wall
        self._most = most
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    async def grant(self, token: str, model: str | None) -> Grant:
        """For a request about `model`: "" is the server itself, None leaves the check to the route.

        Raises FoothillError `unauthorized`, `ticket_expired`, `forbidden`, `rate_limited`, or `unavailable` while the
        ticket's key cannot be had.
        """
        known = self.remembered(token, model)
        return known if known is not None else self._granted(await self._verified(token), model)

    def remembered(self, token: str, model: str | None) -> Grant | None:
        """As `grant`, for a ticket that was verified before; None for any other."""
        held = self._held.get(token)
        if held is None or self._keys.known(held.key_id) is None:
            return None
        self._held.move_to_end(token)
        return self._granted(held, model)

    def _granted(self, held: _Held, model: str | None) -> Grant:
        tickets.check_time(held.ticket, self._wall())
        if model is not None:
            tickets.check_model(held.ticket, model)
        self._count(held.grant)
        return held.grant

    def _count(self, grant: Grant) -> None:
        if grant.usage is not None:
            grant.usage.count_request()
            if self._audience == tickets.CLOUD_AUDIENCE:
                grant.usage.count_cloud_request()

    async def _verified(self, token: str) -> _Held:
        sealed = tickets.parse(token)
        key = self._keys.known(sealed.key_id) or await self._keys.find(sealed.key_id)
        ticket = verify(sealed, key)
        tickets.check_time(ticket, self._wall())
        tickets.check_audience(ticket, self._audience)
        # Another request with the same ticket may have been first while this one waited for the key.
        held = self._held.setdefault(token, _Held(sealed.key_id, ticket, _grant(ticket)))
        self._forget()
        return held

    def _forget(self) -> None:
        """The longest unused first; those that expired first of all, since they are the longest unused."""
        now_s = self._wall()
        while self._held:
            token, held = next(iter(self._held.items()))
            expired = now_s > held.ticket.expires_at_s + tickets.SKEW_S
            if not expired and len(self._held) <= self._most:
                return
            del self._held[token]


def _grant(ticket: Ticket) -> Grant:
    return Grant(ticket.tenant, (ticket.model,), ticket.residency, Usage(ticket.limits))
