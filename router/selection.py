"""Which nodes may have a request, and when each is expected to answer. Pure: it reads the table and changes nothing.

The score is the expected time in ms: T = rtt + service * max(own in flight + others' in flight + 1 - drained, 1) +
failures + charge. `rtt` is router to node for a proxied request, client to node for a leased one; whoever asks passes
the one it means. `drained` is what the node works off while the request is on its way. What is charged is no time that
passes: it makes other nodes better, and never a deadline shorter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Final, Literal

import msgspec

from router.node import DRAINED, FAILURE_MS, UNKNOWN_SERVICE_MS, Node

Refusal = Literal[
    "unidentified",
    "tried",
    "not-serving",
    "other-version",
    "offline",
    "draining",
    "unknown",
    "outside-residency",
    "not-capable",
    "site-only",
    "circuit-open",
]
Distance = Callable[[Node], float]

TIE_MS: Final = 0.5


class Query(msgspec.Struct, frozen=True):
    """What a request needs of a node; `version` "" is any. `ejected`: nothing better is left, so those that kept
    failing, or whose probes fail, may be asked too."""

    model: str
    residency: tuple[str, ...] = ()
    tried: AbstractSet[str] = frozenset()
    public_only: bool = False
    ejected: bool = False
    version: str = ""
    capabilities: tuple[str, ...] = ()


class Score(msgspec.Struct, frozen=True):
    """The terms of one node's expected time, in ms; `waiting` counts the requests that are there when it
    comes, this one included. `doubt_ms`: what is charged where nobody knows how it is,
    `cost_ms` for its costs."""

    rtt_ms: float
    service_ms: float
    waiting: float
    failures_ms: float
    total_ms: float
    doubt_ms: float = 0.0
    cost_ms: float = 0.0

    @property
    def time_ms(self) -> float:
        """What of the total is time that passes."""
        return self.total_ms - self.failures_ms - self.doubt_ms - self.cost_ms


class Ranked(msgspec.Struct, frozen=True):
    node: Node
    score: Score


class Picked(msgspec.Struct):
    """A node, and when it is expected to answer if it does not fail."""

    node: Node
    expected_ms: float


def refusal(node: Node, query: Query, now_s: float) -> Refusal | None:
    """Why this node may not have the request, or None."""
    return next((reason for reason, refuses in _FILTERS if refuses(node, query, now_s)), None)


def within(node: Node, query: Query) -> bool:
    """Whether the node lies inside the claim, and can what it has to."""
    return _inside(node, query) and _able(node, query)


def _inside(node: Node, query: Query) -> bool:
    return not query.residency or node.identity.region in query.residency


def _able(node: Node, query: Query) -> bool:
    return not query.capabilities or node.capabilities.issuperset(query.capabilities)


def of_version(nodes: Iterable[Node], model: str, version: str) -> list[Node]:
    """Those that tell that they have it; where none does, those that tell no version, since they may."""
    every = list(nodes)
    if not version:
        return every
    told = [node for node in every if node.version(model) == version]
    return told or [node for node in every if not node.version(model)]


def score(node: Node, rtt_ms: float, now_s: float) -> Score:
    """A node that has served nothing yet is taken for an average one: scored 0, it would be flooded."""
    service_ms = node.pace_ms(now_s)
    drained = DRAINED * rtt_ms / service_ms if service_ms > 0 else 0.0
    waiting = max(1.0, node.in_flight + node.others_in_flight(now_s) + 1.0 - drained)
    failures_ms = FAILURE_MS * node.failing(now_s)
    doubt_ms = node.doubt_ms
    total_ms = rtt_ms + service_ms * waiting + failures_ms + doubt_ms + node.cost_ms
    return Score(rtt_ms, service_ms, waiting, failures_ms, total_ms, doubt_ms, node.cost_ms)


def rank(nodes: Iterable[Node], query: Query, distance: Distance, now_s: float, rng: random.Random) -> list[Ranked]:
    """The nodes that may have the request, best first; those within half a millisecond in random order."""
    fit = [node for node in nodes if refusal(node, query, now_s) is None]
    assume_usual(fit)
    ranked = [Ranked(node, score(node, distance(node), now_s)) for node in fit]
    ranked.sort(key=lambda each: (round(each.score.total_ms / TIE_MS), rng.random()))
    return ranked


def assume_usual(nodes: Iterable[Node]) -> None:
    """Takes those that have not told what a request takes there for average ones among `nodes`. That half of them are
    so quick is told, too."""
    every = list(nodes)
    known_ms = [node.service_ms for node in every if node.service_ms > 0]
    usual_ms = sum(known_ms) / len(known_ms) if known_ms else UNKNOWN_SERVICE_MS
    middle_ms = sorted(known_ms)[(len(known_ms) - 1) // 2] if known_ms else UNKNOWN_SERVICE_MS
    for node in every:
        node.usual_ms, node.middle_ms = usual_ms, middle_ms


def _has_another(node: Node, query: Query) -> bool:
    return node.version(query.model) not in ("", query.version)


_FILTERS: tuple[tuple[Refusal, Callable[[Node, Query, float], bool]], ...] = (
    ("tried", lambda node, query, now_s: node.name in query.tried),
    ("not-serving", lambda node, query, now_s: query.model not in node.models),
    ("other-version", lambda node, query, now_s: bool(query.version) and _has_another(node, query)),
    ("offline", lambda node, query, now_s: node.state == "offline" and not (query.ejected and node.static)),
    ("draining", lambda node, query, now_s: node.state == "draining"),
    ("unknown", lambda node, query, now_s: node.state == "unknown" and not node.doubtful),
    ("outside-residency", lambda node, query, now_s: not _inside(node, query)),
    ("not-capable", lambda node, query, now_s: not _able(node, query)),
    ("site-only", lambda node, query, now_s: query.public_only and node.identity.reach != "public"),
    ("circuit-open", lambda node, query, now_s: not (query.ejected or node.circuit.allows(now_s))),
)
