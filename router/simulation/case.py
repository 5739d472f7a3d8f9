"""What is simulated: how many routers and nodes, where, under which load, and what goes wrong."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Services = Literal["exponential", "lognormal", "constant"]
Mishap = Literal["none", "failing", "joining"]

AREAS = ("world", "europe", "asia", "north-america")

Count = Annotated[int, Meta(ge=1, le=512)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One situation; every seed draws another world of it.

    A request takes `slowest_ms` in the mean at the slowest nodes, and a `spread` part of that at the fastest; `lanes`
    requests run at a node at once. `load` is the share of what all nodes could do. `requests` are measured, after
    `warm_up_s`.

    `slow_share` of the nodes, drawn anew every `burst_s`, take `slow_factor` times as long. Of the mishaps, each
    beginning with the measured time, `failing` is a node that refuses everything at once for `mishap_s`, `joining` one
    that nobody knew.
    """

    routers: Count = 4
    nodes: Count = 32
    lanes: Count = 1
    load: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.8
    area: str = "world"
    services: Services = "exponential"
    slowest_ms: Annotated[float, Meta(gt=0.0)] = 40.0
    spread: Annotated[float, Meta(ge=1.0)] = 4.0
    requests: Annotated[int, Meta(ge=100)] = 12_000
    warm_up_s: Annotated[float, Meta(ge=0.0)] = 4.0
    slow_share: Share = 0.0
    slow_factor: Annotated[float, Meta(ge=1.0)] = 10.0
    burst_s: Annotated[float, Meta(gt=0.0)] = 5.0
    mishap: Mishap = "none"
    mishap_s: float = 5.0
