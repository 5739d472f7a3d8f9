"""Leases: where a caller should go by itself, ranked for the place it is at."""

from __future__ import annotations

import random

from contracts.headers import Terms
from contracts.leases import Lease, LeasedNode, RouteRequest
from contracts.places import prior_rtt_ms
from router.node import Node
from router.places.located import Caller
from router.places.round_trips import RoundTrips, prefix_of
from router.places.surroundings import Surroundings
from router.selection import Distance, Query, Ranked, rank

MAX_CANDIDATES = 16
CLOUD_ALONE_TTL_S = 2.0
"""A lease without a node is asked for again soon: nodes that come back should not wait for their callers."""


def give(
    asked: RouteRequest,
    terms: Terms,
    caller: Caller,
    surroundings: Surroundings,
    round_trips: RoundTrips,
    *,
    cloud: str,
    ttl_s: float,
    now_s: float,
    rng: random.Random,
) -> Lease:
    """The lease for a caller; one whose place nobody knows is ranked by load alone. `cloud` is "" where it is closed.

    With a cloud a model that no node has gets a lease with the cloud alone: a router knows what nodes serve, and not
    what the cloud does, which answers `model_not_found` itself where it must.
    Raises FoothillError `model_not_found`, `residency_denied` or `unavailable` when there is nowhere to go.
    """
    ranked = ranking(asked.model, terms, caller, surroundings, round_trips, now_s=now_s, rng=rng)
    if not ranked and not cloud:
        raise surroundings.nodes.nowhere(asked.model, terms)
    count = min(max(asked.candidates, 1), MAX_CANDIDATES)
    leased = tuple(_leased(each) for each in ranked[:count])
    lasts_s = ttl_s if leased else min(ttl_s, CLOUD_ALONE_TTL_S)
    return Lease(model=asked.model, nodes=leased, cloud=cloud, ttl_s=lasts_s, place=caller.place)


def ranking(
    model: str,
    terms: Terms,
    caller: Caller,
    surroundings: Surroundings,
    round_trips: RoundTrips,
    *,
    now_s: float,
    rng: random.Random,
    version: str = "",
) -> list[Ranked]:
    """Nodes that a caller can reach by itself, best first: of very many those around it, unless too few of them can."""
    query = Query(model, terms.residency, public_only=True, version=version, capabilities=terms.capabilities)
    distance, near = distance_from(caller, round_trips), surroundings.near(query, caller.place)
    ranked = rank(near, query, distance, now_s, rng)
    if len(ranked) < min(MAX_CANDIDATES, len(near)):
        every = surroundings.nodes.serving(model)
        return rank(every, query, distance, now_s, rng) if len(every) > len(near) else ranked
    return ranked


def distance_from(caller: Caller, round_trips: RoundTrips) -> Distance:
    """Round trip from a caller to a node, in ms: of the distance, corrected by what its network measured.

    0 for all from nowhere, so that distance decides nothing.
    """
    place = caller.place
    if place is None:
        return lambda node: 0.0
    prefix = prefix_of(caller.address) if caller.address is not None else None

    def distance(node: Node) -> float:
        return round_trips.expected_ms(prefix, node.name, prior_rtt_ms(place, node.place))

    return distance


def _leased(ranked: Ranked) -> LeasedNode:
    identity = ranked.node.identity
    return LeasedNode(identity.node, identity.url, identity.region, round(ranked.score.rtt_ms, 3))
