"""How many channels each group loses so that the whole loses its share; pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from model_compiler.learning.channels import Group

Damage = Callable[[float], float]
"""The share of a group's channels that goes, 0 to 1 -> what that is expected to cost; never falling."""


def evenly(lost: float) -> float:
    """Damage for which every group loses the same share."""
    return lost


def allot(groups: Sequence[Group], damage: Mapping[str, Damage], wanted: float) -> dict[str, int]:
    """How many channels each group loses, by name, so that about `wanted` go in all, by whole steps.

    The next step is always taken where the damage after it is the least; among equals, from the group that has then
    lost the smallest share, and of these from the first. It ends as near to `wanted` as its last step allows.
    """
    removed = {group.name: 0 for group in groups}
    queue = [_bid(number, group, 0, damage) for number, group in enumerate(groups) if group.most()]
    heapq.heapify(queue)
    total = 0
    while queue:
        _, _, number = heapq.heappop(queue)
        group = groups[number]
        before = removed[group.name]
        after = group.next_removed(before)
        if total + (after - before) / 2 > wanted:
            break
        removed[group.name] = after
        total += after - before
        if after < group.most():
            heapq.heappush(queue, _bid(number, group, after, damage))
    return removed


def _bid(number: int, group: Group, removed: int, damage: Mapping[str, Damage]) -> tuple[float, float, int]:
    share = group.next_removed(removed) / group.channels
    return damage[group.name](share), share, number
