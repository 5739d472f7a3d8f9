"""`POST /v1/route`: the question where to go, and the lease that answers it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from contracts.places import Place
from contracts.topics import NODE_NAME

MAX_MEASURED = 16
MAX_MEASURED_MS = 10_000.0
_Name = Annotated[str, msgspec.Meta(pattern=rf"\A{NODE_NAME.pattern}\Z")]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_MEASURED_MS)]


class RouteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`model` is logical; `place` overrides what the address says; `candidates` bounds the ranking.

    `measured_ms` are round trips to nodes, by name, that the caller measured since its last lease: one figure each.
    """

    model: str
    place: Place | None = None
    candidates: int = 3
    measured_ms: Annotated[dict[_Name, _Milliseconds], msgspec.Meta(max_length=MAX_MEASURED)] = {}


class LeasedNode(msgspec.Struct, frozen=True):
    """One edge node the caller can reach. `rtt_ms` is the router's estimate for this caller, in ms: by the distance,
    corrected by what callers of the same network measured."""

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
