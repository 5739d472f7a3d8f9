"""Why a request would go where it goes: every node with its score, or with what speaks against it."""

from __future__ import annotations

import msgspec

from contracts.places import Place
from router.leases import distance_from
from router.node import Node
from router.nodes import Nodes
from router.selection import Query, Score, assume_usual, refusal, score


class Candidate(msgspec.Struct, frozen=True):
    """One node. A refusal is None where the node may have the request; scores are given all the same.

    `leased` counts the distance from the caller to the node, `proxied` that from the router to the node.
    """

    node: str
    region: str
    state: str
    circuit: str
    leased_refusal: str | None
    proxied_refusal: str | None
    leased: Score
    proxied: Score


class Explanation(msgspec.Struct, frozen=True):
    """`place` None: the address tells no place, and leases go by load alone. `cloud` False: closed or not there."""

    model: str
    router: str
    router_region: str
    address: str
    place: Place | None
    residency: tuple[str, ...]
    cloud: bool
    cloud_region: str
    candidates: tuple[Candidate, ...]
    unidentified: tuple[str, ...]


def candidates(
    nodes: Nodes, model: str, residency: tuple[str, ...], place: Place | None, now_s: float
) -> tuple[Candidate, ...]:
    """All known nodes, best for a lease first, refused ones last."""
    assume_usual(nodes.serving(model))
    found = [_candidate(node, model, residency, place, now_s) for node in nodes.all()]
    found.sort(key=lambda each: (each.leased_refusal is not None, each.leased.total_ms, each.node))
    return tuple(found)


def _candidate(node: Node, model: str, residency: tuple[str, ...], place: Place | None, now_s: float) -> Candidate:
    return Candidate(
        node=node.name,
        region=node.identity.region,
        state=node.state,
        circuit=node.circuit.state,
        leased_refusal=refusal(node, Query(model, residency, public_only=True), now_s),
        proxied_refusal=refusal(node, Query(model, residency), now_s),
        leased=score(node, distance_from(place)(node), now_s),
        proxied=score(node, node.rtt_ms.value(), now_s),
    )
