"""Whom nobody asks, nothing is learned of: which nodes get one request that shows whether they are well again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from router.node import Node


class Pace(NamedTuple):
    """A node has a trial after so many seconds, and its field has one every `each_s` seconds and `picks` picks."""

    after_s: float
    each_s: float
    picks: int


FAILED = Pace(after_s=0.5, each_s=0.5, picks=10)
FORGOTTEN = Pace(after_s=1.0, each_s=0.5, picks=50)
"""Who was slow when it was last asked: a trial there makes one more request slow."""


class Trials:
    """Those of one field. While a trial goes well the next one follows at once."""

    def __init__(self) -> None:
        self._next = {FAILED: _Next(-math.inf, 0), FORGOTTEN: _Next(-math.inf, 0)}

    def due(self, nodes: Iterable[Node], now_s: float, picks: int) -> list[Node]:
        """Of `nodes`, after so many picks of this field."""
        open_ = {pace: now_s >= then.at_s and picks >= then.pick for pace, then in self._next.items()}
        idle = (node for node in nodes if not (node.in_flight or _waits_for_probe(node)))
        return [node for node in idle if _is_due(node, now_s, open_[_pace_of(node)])]

    def begin(self, node: Node, now_s: float, picks: int) -> None:
        pace = _pace_of(node)
        self._next[pace] = _Next(now_s + pace.each_s, picks + pace.picks)


class _Next(NamedTuple):
    at_s: float
    pick: int


def _waits_for_probe(node: Node) -> bool:
    """It costs no request to learn of it."""
    return node.static and node.doubtful


def _pace_of(node: Node) -> Pace:
    return FORGOTTEN if node.well else FAILED


def _is_due(node: Node, now_s: float, is_open: bool) -> bool:
    if node.well:
        return node.quick_last or (is_open and now_s >= node.learned_s + FORGOTTEN.after_s)
    return node.failed_s is None or (is_open and now_s >= node.failed_s + FAILED.after_s)
