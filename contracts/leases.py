"""`POST /v1/route`: the question where to go, and the lease that answers it."""

from __future__ import annotations

import msgspec

from contracts.places import Place


class RouteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model` is logical; `place` overrides what the address says; `candidates` bounds the ranking."""

    model: str
    place: Place | None = None
    candidates: int = 3


class LeasedNode(msgspec.Struct, frozen=True):
    """One edge node the caller can reach. `rtt_ms` is the router's estimate for this caller, in ms."""

    node: str
    url: str
    region: str
    rtt_ms: float


class Lease(msgspec.Struct, frozen=True):
    """Ranked nodes, best first, and the cloud to fall back to when none is reachable. Valid for `ttl_s` seconds.

    `place` is where the caller was taken to be; None when nobody could say, and the ranking then goes by load alone.
    `ticket` lets the caller in at these servers (`contracts.tickets`); "" from a router that gives none.
    """

    model: str
    nodes: tuple[LeasedNode, ...]
    cloud: str
    ttl_s: float
    place: Place | None = None
    ticket: str = ""
