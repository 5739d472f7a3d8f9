"""Why a request would go where it goes: every node with its score, or with what speaks against it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from contracts.places import Place
from router.leases import distance_from
from router.node import DRAINED, LARGE_BYTES, Node
from router.nodes import Nodes
from router.places.located import Caller, Source
from router.places.round_trips import RoundTrips
from router.selection import Query, Score, assume_usual, refusal, score

FULL, LATE = "full", "late"
"""What a field refuses beside `selection.refusal`: a node that has its share, and one that is expected too late."""


class Asked(NamedTuple):
    """What is asked about: a request of `size_bytes` in and out, to be answered in `deadline_ms` (None: any time)."""

    model: str
    residency: tuple[str, ...] = ()
    deadline_ms: float | None = None
    size_bytes: int = 0
    capabilities: tuple[str, ...] = ()


class Expected(Score, frozen=True):
    """A score with what it is made of. `waiting` is own + others + 1 - `drained`, and 1 at least; `transfer_ms` is
    what a large body takes beyond the distance, and part of the total. Nine of ten answers come `within_ms`."""

    drained: float = 0.0
    transfer_ms: float = 0.0
    within_ms: float = 0.0


class Candidate(msgspec.Struct, frozen=True):
    """One node. A refusal is None where the node may have the request; scores are given all the same.

    `leased` counts the round trip from the caller to the node, `proxied` that from the router to the node. The former
    is `prior_rtt_ms`, by the distance (None: no place), corrected by `samples` round trips that callers of the same
    network measured, `measured_rtt_ms` on average (None: none); the latter the router has measured `router_samples`
    times.

    The node tells that a request takes `service_ms` there (0: it has told nothing, and counts as an average one); back
    for a short time only, it gets the `share` of its requests. This router has `own_in_flight` there, of
    `most_in_flight` at most, and others `others_in_flight`. `failing` is the recent share of failures, 0..1;
    nine of ten answers came within `sure` times what was expected.
    """

    node: str
    region: str
    state: str
    circuit: str
    leased_refusal: str | None
    proxied_refusal: str | None
    prior_rtt_ms: float | None
    measured_rtt_ms: float | None
    samples: int
    router_samples: int
    service_ms: float
    share: float
    own_in_flight: int
    most_in_flight: float
    others_in_flight: float
    failing: float
    sure: float
    leased: Expected
    proxied: Expected
    capabilities: tuple[str, ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    """`place` None: the address tells no place, and leases go by load alone. `cloud` False: closed or not there.

    `place_source` says who places the caller there, "" where nobody does, and `place_error_km` how far off that may be.
    `leased_to` and `proxied_to` are the best nodes, "" where there is none; others within half a millisecond are as
    good.
    """

    model: str
    router: str
    router_region: str
    address: str
    place: Place | None
    place_error_km: float | None
    place_source: Source | Literal[""]
    residency: tuple[str, ...]
    deadline_ms: float | None
    size_bytes: int
    cloud: bool
    cloud_region: str
    leased_to: str
    proxied_to: str
    candidates: tuple[Candidate, ...]
    unidentified: tuple[str, ...]
    capabilities: tuple[str, ...] = ()


def candidates(
    nodes: Nodes, asked: Asked, caller: Caller, round_trips: RoundTrips, now_s: float
) -> tuple[Candidate, ...]:
    """All known nodes, best for a lease first, refused ones last."""
    assume_usual(nodes.serving(asked.model))
    found = [_candidate(node, asked, caller, round_trips, now_s) for node in nodes.all()]
    found.sort(key=lambda each: (each.leased_refusal is not None, each.leased.total_ms, each.node))
    return tuple(found)


def best_proxied(found: tuple[Candidate, ...]) -> str:
    fit = [each for each in found if each.proxied_refusal is None]
    return min(fit, key=lambda each: each.proxied.total_ms).node if fit else ""


def best_leased(found: tuple[Candidate, ...]) -> str:
    return found[0].node if found and found[0].leased_refusal is None else ""


def _candidate(node: Node, asked: Asked, caller: Caller, round_trips: RoundTrips, now_s: float) -> Candidate:
    way = round_trips.told(caller.address, caller.place, node.name, node.place)
    transfer_ms = node.transfer_ms(asked.size_bytes) if asked.size_bytes >= LARGE_BYTES else 0.0
    proxied = _expected(node, node.rtt_ms.value(), transfer_ms, now_s)
    usual_ms = node.service_ms or node.usual_ms
    return Candidate(
        node=node.name,
        region=node.identity.region,
        state=node.state,
        circuit=node.circuit.state,
        leased_refusal=refusal(node, _query(asked, public_only=True), now_s),
        proxied_refusal=_proxied_refusal(node, asked, proxied, now_s),
        prior_rtt_ms=way.prior_ms,
        measured_rtt_ms=way.measured_ms,
        samples=way.samples,
        router_samples=node.rtt_ms.count,
        service_ms=node.service_ms,
        share=usual_ms / node.pace_ms(now_s),
        own_in_flight=node.in_flight,
        most_in_flight=node.most,
        others_in_flight=node.others_in_flight(now_s),
        failing=node.failing(now_s),
        sure=node.sure,
        leased=_expected(node, distance_from(caller, round_trips)(node), 0.0, now_s),
        proxied=proxied,
        capabilities=tuple(sorted(node.capabilities)),
    )


def _query(asked: Asked, *, public_only: bool = False) -> Query:
    return Query(asked.model, asked.residency, public_only=public_only, capabilities=asked.capabilities)


def _expected(node: Node, rtt_ms: float, transfer_ms: float, now_s: float) -> Expected:
    """As `Field.pick` counts a proxied request, and `leases.ranking` a leased one, which knows of no bodies."""
    known = score(node, rtt_ms, now_s)
    total_ms = known.total_ms + transfer_ms
    return Expected(
        **{**msgspec.structs.asdict(known), "total_ms": total_ms},
        drained=DRAINED * rtt_ms / known.service_ms if known.service_ms > 0 else 0.0,
        transfer_ms=transfer_ms,
        within_ms=(known.time_ms + transfer_ms) * node.sure,
    )


def _proxied_refusal(node: Node, asked: Asked, expected: Expected, now_s: float) -> str | None:
    """Leases are no promise of one request: they know of no deadline, and of no limit of this router's."""
    refused = refusal(node, _query(asked), now_s)
    if refused is not None:
        return refused
    if node.in_flight >= node.most:
        return FULL
    late = asked.deadline_ms is not None and expected.within_ms > asked.deadline_ms
    return LATE if late else None
