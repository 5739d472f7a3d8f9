"""The ticket of a lease: what it says, how it looks in a header, and whether it lets a request pass.

A ticket travels as `Authorization: Bearer TICKET`. TICKET is `ft1.KEY_ID.PAYLOAD.SIGNATURE`: the key's 16 hex digits,
then MessagePack of `Ticket` and an Ed25519 signature, both in base64url without padding.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Annotated

import msgspec

from contracts.errors import FoothillError

SCHEME = "ft1"
CLOUD_AUDIENCE = "@cloud"
"""The cloud tier in `aud`, whatever its name: a router knows its URL alone. No node can be named so."""
MAX_TICKET_CHARS = 8000
"""With 16 nodes and 64 regions, all with long names, and within what HTTP servers take as one header."""
MAX_LIFE_S = 7 * 86_400.0
SKEW_S = 30.0
"""How far the clocks of a router and a node may be apart."""

_TICKET = re.compile(rf"{SCHEME}\.([0-9a-f]{{16}})\.([A-Za-z0-9_\-]+)\.([A-Za-z0-9_\-]{{86}})")

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the holder of a ticket may use at each server before it must ask for a new lease; 0 sets no limit.

    `requests` for answers, `escalations` of them to the cloud, `bytes` of request bodies.
    """

    requests: Count = 0
    escalations: Count = 0
    bytes: Count = 0


class Ticket(msgspec.Struct, frozen=True):
    """Short-lived (`expires_at_s`, unix time), signed by the router with a key of the fleet, checked off line.

    `aud` are the nodes that may take it, and CLOUD_AUDIENCE; `jti` makes it countable; `tenant` is whose it is, ""
    where the router asks nobody who he is. `residency` empty: no claim.
    """

    jti: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    aud: tuple[str, ...]
    tenant: Annotated[str, msgspec.Meta(max_length=128)]
    model: str
    residency: tuple[str, ...]
    limits: Limits
    issued_at_s: float
    expires_at_s: float


class Sealed(msgspec.Struct, frozen=True):
    """A ticket as it came: nothing of it is believed before its signature was verified."""

    key_id: str
    payload: bytes
    signature: bytes


def looks_like_ticket(token: str) -> bool:
    """Whether a bearer token means to be a ticket; any other is a static one."""
    return token.startswith(f"{SCHEME}.")


def compact(sealed: Sealed) -> str:
    return f"{SCHEME}.{sealed.key_id}.{_encoded(sealed.payload)}.{_encoded(sealed.signature)}"


def parse(token: str) -> Sealed:
    """Takes a compact ticket apart. Raises FoothillError `unauthorized` for what has another form.

    One ticket has one spelling: base64 that says the same in other letters is refused, so that a spelling can stand
    for its ticket where tickets are remembered.
    """
    found = _TICKET.fullmatch(token) if len(token) <= MAX_TICKET_CHARS else None
    if found is not None:
        payload, signature = _decoded(found[2]), _decoded(found[3])
        if payload is not None and signature is not None:
            return Sealed(found[1], payload, signature)
    raise FoothillError(
        "unauthorized", "The ticket is not in the form that routers give out: ask for a new lease, POST /v1/route."
    )


def check_time(ticket: Ticket, now_s: float) -> None:
    """Raises FoothillError `ticket_expired`, or `unauthorized` for one from the future or without an end."""
    lasts_s = ticket.expires_at_s - ticket.issued_at_s
    if not (math.isfinite(ticket.expires_at_s) and 0 < lasts_s <= MAX_LIFE_S):
        raise FoothillError(
            "unauthorized", f"The ticket lasts longer than {MAX_LIFE_S:.0f} s, or never ends: lower tickets.ttl_s."
        )
    if ticket.issued_at_s > now_s + SKEW_S:
        raise FoothillError(
            "unauthorized",
            f"The ticket was issued {ticket.issued_at_s - now_s:.0f} s from now: set the clocks of router and server.",
        )
    if now_s > ticket.expires_at_s + SKEW_S:
        raise FoothillError(
            "ticket_expired",
            f"The ticket expired {now_s - ticket.expires_at_s:.0f} s ago: ask for a new lease, POST /v1/route.",
        )


def check_audience(ticket: Ticket, audience: str) -> None:
    """Raises FoothillError `forbidden` for a ticket that names other servers."""
    if audience not in ticket.aud:
        raise FoothillError(
            "forbidden",
            f"The ticket is for {', '.join(ticket.aud)[:200] or 'nobody'}, not for {audience}. "
            "Use the servers of the lease that it came with.",
        )


def check_model(ticket: Ticket, model: str) -> None:
    """`model` "" is a route about no model. Raises FoothillError `forbidden`."""
    if model != ticket.model:
        asked = f"model {model[:80]}" if model else "routes about the server itself"
        raise FoothillError(
            "forbidden", f"The ticket is for model {ticket.model}, not for {asked}. Lease that model, or use a token."
        )


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes | None:
    """None where the text is not the one that `_encoded` writes."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return data if _encoded(data) == text else None
